// What the page adds to Chainlit's: sources open beside the chat, and the address is that of the conversation.

const panel = document.createElement("aside");
panel.id = "source";
panel.hidden = true;
panel.setAttribute("aria-label", "Source");
panel.innerHTML = `
  <header>
    <span>Source</span>
    <nav><a target="_blank" rel="noopener">Open in a tab</a><button type="button">Close</button></nav>
  </header>
  <iframe title="Source"></iframe>`;
document.body.append(panel);

const frame = panel.querySelector("iframe");
const tab = panel.querySelector("a");
let opener = null;

function openSource(link) {
  closeSource();
  const address = new URL(link.href);
  address.searchParams.set("theme", document.documentElement.classList.contains("dark") ? "dark" : "light");
  address.hash = "quote";
  // Replaced, not navigated: the back button belongs to the chat.
  frame.contentWindow.location.replace(address);
  tab.href = address;
  opener = link;
  opener.setAttribute("aria-expanded", "true");
  panel.hidden = false;
  document.body.classList.add("source-open");
  panel.querySelector("button").focus();
}

function closeSource() {
  if (panel.hidden) return;
  panel.hidden = true;
  document.body.classList.remove("source-open");
  frame.contentWindow.location.replace("about:blank");
  opener.removeAttribute("aria-expanded");
  opener.focus();
}

document.addEventListener(
  "click",
  (event) => {
    const link = event.target.closest?.('a[href^="/sources/"]');
    if (!link || panel.contains(link) || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (link === opener && !panel.hidden) closeSource();
    else openSource(link);
  },
  true,
);

panel.querySelector("button").addEventListener("click", closeSource);
const onKey = (event) => {
  if (event.key === "Escape") closeSource();
};
document.addEventListener("keydown", onKey);
// Also while the source itself has the focus: it is of our own origin, and has no scripts.
frame.addEventListener("load", () => {
  frame.contentDocument?.addEventListener("keydown", onKey);
  panel.querySelector("header span").textContent = frame.contentDocument?.title || "Source";
});

// Chainlit changes the address of a new conversation only where it is served at the root: a reload would lose it.
window.addEventListener("message", (event) => {
  const id = event.source === window && event.data?.synapse_conversation;
  if (typeof id === "string" && /\/chat\/?$/.test(location.pathname)) {
    history.replaceState(history.state, "", `/chat/thread/${encodeURIComponent(id)}`);
  }
});

// A copied answer has its marks, but neither the addresses behind them nor Markdown's backslashes.
if (navigator.clipboard) {
  navigator.clipboard.write = async ([item]) => {
    const text = await (await item.getType("text/plain")).text();
    const marks = /\[(\[\d+\])\]\(\/sources\/[^)]*\)/g;
    const plain = marks.test(text) ? text.replace(marks, "$1").replace(/\\([!-/:-@[-`{-~])/g, "$1") : text;
    await navigator.clipboard.writeText(plain);
  };
}

// A page that the browser kept for its back button is not shown again: whoever was signed in may have left.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
