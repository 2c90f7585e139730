"""Something that is too large for one process, in parts that others hold."""

from typing import Any, Protocol


class Part(Protocol):
    """What a process must know to hold a part; it can be pickled."""

    def open(self) -> Any:
        """The part; raises ``EcomRagError`` where it is not there, or not the one that was meant."""


class Held(Protocol):
    """Parts that processes hold, e.g. ``distribution.ray_parts.RayParts``; it can be sent to workers."""

    def ask(self, name: str, *arguments: Any) -> list[Any]:
        """What a method of each part gives, in the order of the parts.

        Args:
            name: Of the method.
            arguments: The same for all parts; each gets copies that it may write to.

        Raises:
            DistributionError: A process that holds a part is gone for good.
            EcomRagError: What a part raised.
        """
