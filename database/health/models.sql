-- models --
SELECT name, model, dimension, vector_type, active FROM public.embedding_models ORDER BY created_at, name

-- correct_model --
UPDATE embedding_models SET dimension = {dimension}, vector_type = {vector_type} WHERE name = {name}
