"""Find secrets in text, in whatever form they are written, and put a mark in their place.

    mask = Mask({"token": "hunter22"})
    mask.text("the key is hunter22")               # the key is ***token***
    cell.outputs = mask.node(cell.outputs)         # the same in nested lists and dicts

A secret is found as it is and as Python, JSON, YAML, HTML, URLs, CSV, shells, base64 and hex write it, also in colours,
wrapped, or cut short after 16 characters or more. One that was compressed, computed with, or printed in pieces with
something else between is not: a mask is a net under the notebook's own care.
"""

import base64
import bisect
import functools
import html
import re
from collections.abc import Iterator, Mapping
from html.entities import codepoint2name
from typing import Any
from urllib.parse import quote

SHORTEST = 6  # characters; a shorter value could not be masked without masking ordinary text
_HEAD = 16  # characters; so many of a longer secret are masked even where the others do not follow
Span = tuple[int, int, str]  # where in some data the secret of which parameter is


class Mask:
    """Puts ***token*** in the place of the value of the secret `token`, in whatever form.

    `secrets` is what `secrets_of` returns. A mask without secrets is false, and returns what it is given.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = list(secrets)
        self._forms: dict[_Encoding, list[_Form]] = {_LINE: [], _LINES: [], _BASE64: [], _HEX: []}
        self._wide: dict[bytes, str] = {}  # UTF-16, as Windows writes text, and UTF-32, as NumPy does
        for name, secret in secrets.items():
            lines = (line.strip() for line in secret.splitlines())  # a key of many lines may be shown line by line
            for value in {v for v in (secret, secret.strip(), *lines) if len(v) >= SHORTEST}:
                self._forms[_LINES if "\n" in value or "\r" in value else _LINE].append(_plain_form(name, value))
                self._forms[_BASE64] += [_Base64Form(name, value.encode(), offset) for offset in range(3)]
                self._forms[_HEX] += _hex_forms(name, value.encode())
                self._wide = {value.encode(code): name for code in ("utf-16-le", "utf-32-le")} | self._wide

    def __bool__(self) -> bool:
        return bool(self._names)

    def __repr__(self) -> str:
        return f"Mask({', '.join(self._names)})"

    def text(self, text: str) -> str:
        """`text` without the secrets; the same object if there are none in it."""
        if not self:
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans = self.find(data)
        return masked(data, spans).decode("utf-8", "surrogatepass") if spans else text

    def node(self, value: Any) -> Any:
        """A copy of nested dicts and lists, such as a cell's outputs, with `text` of every string and key in them."""
        if not self:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return type(value)({self.node(key): self.node(item) for key, item in value.items()})
        if isinstance(value, (list, tuple)):
            return type(value)(self.node(item) for item in value)
        return value

    def find(self, data: bytes, wide: bool = False) -> list[Span]:
        """Where in `data` (UTF-8) the secrets are; `wide` looks for UTF-16 and UTF-32 too."""
        spans: list[Span] = []
        bare = _COLOUR.sub(b"", data) if any(mark in data for mark in _COLOUR_MARKS) else data
        for encoding, forms in self._forms.items():
            text = encoding.skim(bare)
            present = [form for form in forms if form.anchor in text]
            if present:
                view = _View(data, encoding.unseen)
                spans += [span for form in present for span in form.find(view)]
        if wide:
            spans += [(at, at + len(form), name) for form, name in self._wide.items() for at in _places(data, form)]
        return spans


# --- the forms of a secret -------------------------------------------------------------------------------------------

# A change of colour, of a terminal's or in HTML.
_COLOUR = re.compile(rb"\x1b\[[\d;]*m|\\\\{0,7}(?:x1b|u001b|033)\[[\d;]*m|</?span\b[^<>]*>")
_COLOUR_MARKS = (b"\x1b[", b"1b[", b"033[", b"<span", b"</span")


class _Encoding:
    """A way of writing secrets, and `unseen`: what may stand between any two of its characters, as colours may."""

    def __init__(self, unseen: bytes, words: tuple[bytes, ...], fillers: bytes) -> None:
        self.unseen = re.compile(_COLOUR.pattern + b"|" + unseen)
        self._words = words
        self._fillers = fillers

    def skim(self, data: bytes) -> bytes:
        """`data` without the unseen, and perhaps without more, but soon: most data hold no secret."""
        for word in self._words:
            data = data.replace(word, b"")
        return data.translate(None, self._fillers)


_LINE = _Encoding(rb"[\r\n]+[ \t]*", (), b" \t\r\n")  # the end of a line that was too long for a screen or a page
_LINES = _Encoding(rb"(?!)", (), b"")  # a secret of many lines has such ends itself
_BASE64 = _Encoding(  # lines; also as they stand in JSON, YAML, a URL, or a list of strings
    rb"\\[nr]|%0[AaDd]|[ \t\r\n\\\"',]", (b"\\n", b"\\r", b"%0A", b"%0D", b"%0a", b"%0d"), b" \t\r\n\\\"',"
)
_HEX = _Encoding(rb"\\x|[ \t\r\n:,%-]", (b"\\x",), b" \t\r\n:,%-")


class _View:
    """Data as a reader sees it, without the unseen."""

    def __init__(self, data: bytes, unseen: re.Pattern[bytes]) -> None:
        self.data = data
        self._starts, self._origins = [0], [0]  # where a piece of the text starts there, and where in the data it did
        pieces, length, at = [], 0, 0
        for match in unseen.finditer(data):
            pieces.append(data[at : match.start()])
            length += match.start() - at
            at = match.end()
            self._starts.append(length)
            self._origins.append(at)
        self.text = b"".join([*pieces, data[at:]])

    def origin(self, place: int) -> int:
        """Where in the data this place of the text is."""
        piece = bisect.bisect_right(self._starts, place) - 1
        return self._origins[piece] + place - self._starts[piece]


class _Form:
    """A secret in some encoding: a pattern for each of its characters, of which the first is one of the bytes `first`.

    The first `head` of them are enough to know it by, and hold `anchor`, bytes that are always the same.
    """

    def __init__(self, name: str, pieces: list[bytes], first: bytes, head: int, anchor: bytes) -> None:
        self.name = name
        self.anchor = anchor
        self._first = first
        self._pieces = pieces
        self._head = head

    @functools.cached_property  # compiled when there is a reason to
    def _patterns(self) -> list[re.Pattern[bytes]]:
        """Of the first byte, the whole, the head, and each character that follows it."""
        head, rest = self._pieces[: self._head], self._pieces[self._head :]
        patterns = [b"[" + re.escape(self._first) + b"]", b"".join(self._pieces), b"".join(head), *rest]
        return [_compiled(pattern) for pattern in patterns]

    def find(self, view: _View) -> Iterator[Span]:
        """All places, those that overlap too; one that is cut short as far as it goes."""
        first, whole, head, *rest = self._patterns
        for start in (match.start() for match in first.finditer(view.text)):
            if not (match := head.match(view.text, start)):
                continue
            if complete := whole.match(view.text, start):
                yield self._span(view, start, complete.end(), True)
                continue
            end = match.end()
            for character in rest:
                if not (match := character.match(view.text, end)):
                    break
                end = match.end()
            yield self._span(view, start, end, False)

    def _span(self, view: _View, start: int, end: int, complete: bool) -> Span:
        return view.origin(start), view.origin(end - 1) + 1, self.name


class _Base64Form(_Form):
    """The characters of base64 that a secret alone decides, after `offset` (0, 1 or 2) bytes of other data."""

    def __init__(self, name: str, value: bytes, offset: int) -> None:
        first_bit, last_bit = 8 * offset, 8 * (offset + len(value))
        text = base64.b64encode(bytes(offset) + value)[-(-first_bit // 6) : last_bit // 6].decode()
        head = _HEAD * 8 // 6
        pieces = [_IN_BASE64.get(character, character.encode()) for character in text]
        first = text[0].encode() if text[0].isalnum() else b"+-/_%u&"
        super().__init__(name, pieces, first, head, _anchor(text[:head]))
        self._before, self._after = first_bit % 6, last_bit % 6

    def _span(self, view: _View, start: int, end: int, complete: bool) -> Span:
        """With the characters beside, if some of their bits are the secret's."""
        start, end, name = super()._span(view, start, end, complete)
        if self._before and (before := _BEFORE.search(view.data, max(0, start - 20), start)):
            start = before.start()
        if self._after and complete and (after := _AFTER.match(view.data, end)):
            end = after.end()
        return start, end, name


_IN_BASE64 = {  # also urlsafe, and as JSON, URLs and HTML write these two
    "+": rb"(?:[+-]|%(?:25)*2[bB]|u002[bB]|&(?:amp;)*#(?:43|x2[bB]);)",
    "/": rb"(?:[/_]|%(?:25)*2[fF]|u002[fF]|&(?:amp;)*#(?:47|x2[fF]);)",
}
_BEFORE = re.compile(rb"(?<!\\)[\w+/-](?:\\{1,8}[nr]|[\n\r])*\Z")
_AFTER = re.compile(rb"(?:\\{1,8}[nr]|[\n\r])*[\w+/-]")


def _plain_form(name: str, value: str) -> _Form:
    parts = [match for match in re.finditer(r"(\\*)(?:([^\\])\2*)?", value) if match[0]]  # "\\\''" is one
    pieces = [_written(len(part[1]), part[2] or "", part.end() - part.end(1)) for part in parts]
    first = value[0].encode()[:1] + (b"" if value[0].encode().isalnum() else b"\\%&+")
    return _Form(name, pieces, first, _HEAD, _anchor("".join(part[0] for part in parts[:_HEAD])))


def _hex_forms(name: str, value: bytes) -> Iterator[_Form]:
    for form in (b"%02x", b"%02X"):
        pieces = [form % octet for octet in value]
        yield _Form(name, pieces, pieces[0][:1], _HEAD, b"".join(pieces[:_HEAD]))


_SLASH = rb"(?:\\|%(?:25)*5[cC]|&(?:amp;)*#(?:92|[xX]5[cC]);)"  # a backslash, also in URLs and HTML
_SLASHES = _SLASH + b"{1,8}"  # before what they escape, perhaps escaped themselves
_AMPERSAND = rb"(?:&|%(?:25)*26|" + _SLASHES + rb"u0026)(?:(?:amp|AMP)(?:;|%(?:25)*3[bB]))*"
_NAMES = {ord("'"): "apos", **codepoint2name}
_LETTERS = dict(zip("\0\a\b\t\n\v\f\r", "0abtnvfr", strict=True))


def _written(slashes: int, character: str, times: int) -> bytes:
    r"""A pattern of so many backslashes and then a character so many times; `\\\''` is 3, "'", 2.

    It matches them as they are, and as Python, JSON, YAML, HTML, URLs, CSV and shells write them, also one in another.
    """
    if not character:  # at the end of the secret: no more of them than are its own
        ways = [_SLASH + rb"{%d}" % (slashes * doubled) for doubled in (8, 4, 2, 1)]
    elif slashes and times > 1:
        return _written(slashes, character, 1) + _written(0, character, times - 1)
    else:
        one, next_one = (b"(?:" + _one(number, character) + b")" for number in (slashes, 0))
        ways = [one]
        if character in "'\"":  # YAML, CSV: twice in the same way, lest a string's own quote be taken for half of it
            same = ("\\" + character, "\\\\\\" + character, html.escape(character), quote(character))
            ways += [rb"\\{0,8}" + 2 * character.encode(), *(re.escape(2 * way).encode() for way in same)]
        if character == "'":
            between = b"(?:" + _one(0, '"') + b")"
            ways += [one + next_one * 2, one + (between + next_one) * 2]  # shells
        # Where a line was broken, no space is left. The last plus is for speed: what fits is not tried in other ways.
        number = b"{0,%d}+" if character == " " else b"{%d}"
        ways = [b"(?:" + way + b")" + number % times for way in ways]
    return b"(?:" + b"|".join(ways) + b")"


@functools.cache
def _one(slashes: int, character: str) -> bytes:
    octets, code = character.encode(), ord(character)
    slash, most = _SLASH, 8 + 16 * slashes
    if slashes:
        slash = b"(?:" + _SLASHES + rb"(?:x5[cC]|u005[cC]|134)|" + _SLASH + b")"
    if octets.isalnum():  # nobody escapes these
        return slash + rb"{%d,%d}" % (slashes, most) + octets
    pairs = re.findall("....", character.encode("utf-16-be").hex())
    escapes = [
        [rb"u(?i:%s)" % pair.encode() for pair in pairs],
        [rb"(?:U(?i:%08x)|u\{(?i:%x)\})" % (code, code)],
        *([form % octet for octet in octets] for form in (rb"x(?i:%02x)", rb"%03o")),
        *([form % code] for form in (rb"x(?i:%02x)", rb"%03o") if 127 < code < 256),
        *([letter.encode()] for letter in _LETTERS.get(character, "")),
    ]
    entities = [rb"(?:#|%%(?:25)*23)(?:0*%d|[xX]0*(?i:%x))" % (code, code), _NAMES.get(code, "#").encode()]
    others = [
        b"".join(rb"%%(?:25)*(?i:%02x)" % octet for octet in octets),
        _AMPERSAND + b"(?:" + b"|".join(entities) + rb")(?:;|%(?:25)*3[bB])",
        re.escape(octets),
        *([rb"\+"] if character == " " else []),
    ]
    escaped = slash + rb"{%d,%d}(?:" % (max(slashes, 1), most) + b"|".join(map(_SLASHES.join, escapes)) + b")"
    return escaped + b"|" + slash + rb"{%d,%d}(?:" % (slashes, most) + b"|".join(others) + b")"


def _anchor(text: str) -> bytes:
    return max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="").encode()


@functools.cache
def _compiled(piece: bytes) -> re.Pattern[bytes]:
    return re.compile(piece)


def _places(data: bytes, form: bytes) -> Iterator[int]:
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def masked(data: bytes, spans: list[Span], fill: bool = False) -> bytes:
    """`data` with ***name*** for each span, or with `fill` as many asterisks. Spans that overlap become one."""
    pieces, done = [], 0
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            pieces += [data[done:start], b"" if fill else f"***{name}***".encode()]
            done = start
        if fill:
            pieces.append(b"*" * (end - done))
        done = max(done, end)
    return b"".join([*pieces, data[done:]])
