"""What a model asks of tokens, beside what the installation asks of them."""

from gateway.access.caller import Caller


class TokenRule:
    """Rule of one model for the tokens with which it may be used."""

    __slots__ = ("_audiences", "_groups")

    def __init__(self, audiences: tuple[str, ...], groups: tuple[str, ...]) -> None:
        """Ask for one of the audiences and for one of the groups; where there are none, for none."""
        self._audiences = frozenset(audiences)
        self._groups = frozenset(groups)

    def permits(self, caller: Caller | None) -> bool:
        """Return whether a caller is known by a token that has what the model asks for."""
        if caller is None or not caller.by_token:
            return False
        if self._audiences and self._audiences.isdisjoint(caller.audiences):
            return False
        return not self._groups or not self._groups.isdisjoint(caller.groups)
