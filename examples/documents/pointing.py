"""Where to point the telescope: from the sky's coordinates to the mount's."""

from __future__ import annotations

import math
from datetime import UTC, datetime

LATITUDE_DEGREES = 50.93
LONGITUDE_DEGREES = 11.58


def sidereal_time(moment: datetime) -> float:
    """
    Local mean sidereal time in degrees, 0 to 360.

    The formula is that of the Astronomical Almanac, good to a tenth of a second between 1901 and 2099.
    """
    days = (moment.astimezone(UTC) - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / 86400
    return (280.46061837 + 360.98564736629 * days + LONGITUDE_DEGREES) % 360


def altitude_and_azimuth(right_ascension: float, declination: float, moment: datetime) -> tuple[float, float]:
    """Altitude above the horizon and azimuth from north through east, in degrees, without refraction."""
    hour_angle = math.radians(sidereal_time(moment) - right_ascension)
    latitude, declination = math.radians(LATITUDE_DEGREES), math.radians(declination)
    sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(
        hour_angle
    )
    altitude = math.asin(sine)
    azimuth = math.atan2(
        -math.sin(hour_angle),
        math.tan(declination) * math.cos(latitude) - math.sin(latitude) * math.cos(hour_angle),
    )
    return math.degrees(altitude), math.degrees(azimuth) % 360


class PointingModel:
    """
    What the mount must be told so that the telescope looks where it should.

    The main telescope's tube sags by up to 38 arc seconds when it points low in the south.
    """

    SAG_ARCSEC = 38.0

    def corrected(self, altitude: float, azimuth: float) -> tuple[float, float]:
        """Add the tube's sag to an altitude; the mount refuses to go below 15 degrees."""
        if altitude < 15:
            raise ValueError(f"the mount stops at 15 degrees above the horizon, but {altitude:.1f} was asked for")
        return altitude + self.SAG_ARCSEC / 3600 * math.cos(math.radians(altitude)), azimuth
