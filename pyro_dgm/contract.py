"""The few names that a program and its reader share: the plates, and the noise of a discrete site."""

DATA = "data"
PARTICLES = "particles"


def noise_name(site: str) -> str:
    """Name of the dequantization noise of a discrete site.

    Example:
        >>> noise_name("x")
        'x_noise'
    """
    return f"{site}_noise"
