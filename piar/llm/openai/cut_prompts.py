"""Whether a server cuts long prompts and says nothing. Pure, but for what it remembers."""

from collections import deque

from piar.llm.base import Request

BYTES_A_TOKEN = 16  # more than in the text of any language
LEAST_BYTES = 4096  # of a prompt that may have been cut
ROUND_REST = 4  # tokens beyond round thousands
MOST = 256  # prompts that are held against each other


class Reads:
    """How long the prompts of an endpoint were, and how much of them it says that it read."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=MOST)  # bytes of a prompt, and tokens of it that were read

    def cut(self, request: Request, read: int) -> bool:
        """Whether a prompt was cut: far fewer tokens than it has words, or as many round thousands as longer ones.

        A few tokens more than round are round, too: Ollama keeps the beginning and half of its window. Few are round by
        chance; by a window, most of the prompts that are as long.

        Args:
            read: tokens of the prompt, as the reply counts them; 0 where it says none.
        """
        size = sum(len(message.content.encode()) for message in request.messages)
        if read and size > LEAST_BYTES and size > BYTES_A_TOKEN * read:
            return True
        if read == 0:
            return False
        self._seen.append((size, read))
        if read % 1024 > ROUND_REST:
            return False
        alike = [s for s, r in self._seen if r // 1024 == read // 1024 and r % 1024 <= ROUND_REST]
        as_long = sum(s >= min(alike) for s, _ in self._seen)
        return max(alike) > 1.1 * min(alike) and len(alike) > as_long / 2
