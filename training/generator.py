"""Makes up sittings: a list of tools and several conversations held with it, each ending in one right answer.

Everything is drawn from one `random.Random`, so the same seed gives the same data. Knows nothing of tokens or models.
The shapes of data, and why each is there, are described in `README.md`.
"""

# ruff: noqa: SIM905 (word lists are easier to read and to change as text)

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from training import catalogue as kinds
from training.catalogue import Argument, Catalogue, Kind
from training.conversation import Call, Decision, Parameter, Sitting, Tool, Value, render_answer, turn

NOTHING_FITS = "None of my tools fits this request."
NO_TOOLS = "I am a demonstration model and do not know; with a fitting tool I could call it."
AFTER_RESULT = "The tool answered: "
QUOTE_WORDS = 24

# Kinds that can answer nearly any question of fact: beside them, only a request for an *action* has no tool.
GENERAL = {
    "web_search",
    "ask_web",
    "encyclopedia",
    "news",
    "run_python",
    "compute_python",
    "code_task",
    "shell",
    "http_request",
}
FACT_GROUPS = {"web", "finance", "life", "suite"}
# Kinds of those groups that act, so that no search or program stands in for them.
ACTING = {
    "rent_car",
    "add_to_cart",
    "return_item",
    "generate_image",
    "resize_image",
    "remove_background",
    "rotate_image",
    "transcribe",
    "text_to_speech",
    "trim_video",
    "transfer_money",
    "shorten_url",
    "post_blog",
    "qr_code",
}
# Words too common to be replaced by invented ones.
COMMON_WORDS = set(
    (
        "what which when where with from that this there have does much many more some into about over under than "
        "they them your mine ours their will would could should please tell give want need look like used uses "
        "using returns return given every each between after before same other only also want find show make one "
        "off the for and are was how who has had can its our out new any all two not you his her too get see use"
    ).split()
)

OPENERS = ("please ", "can you ", "could you ", "I need you to ", "would you ", "I'd like you to ", "I want you to ")
GREETINGS = ("hi, ", "hey, ", "hello, ", "ok, ", "quick question: ", "so, ", "now ", "well, ", "also, ")
CLOSERS = (" please", " thanks", " for me", " right now", " if you can", ", thank you", " now", " today")
VENDORS = ("acme nova skynet zephyr orbit delta prime lumen vertex pixel quill raven atlas cobalt ember flux").split()
LEADS = (
    "Tool to {}",
    "Use this to {}",
    "Use this tool when you need to {}",
    "This function can {}",
    "Lets you {}",
    "A tool that can {}",
    "Call this to {}",
    "Helps to {}",
    "Service to {}",
)
EXTRAS = (
    ("limit", "integer"),
    ("max_results", "integer"),
    ("format", "string"),
    ("verbose", "boolean"),
    ("timeout", "integer"),
    ("lang", "string"),
    ("page", "integer"),
    ("dry_run", "boolean"),
    ("options", "object"),
    ("fields", "array"),
    ("offset", "integer"),
    ("user_agent", "string"),
)
SYLLABLES = (
    "ba be bi bo bu ca ce co da de di do du fa fe fi fo ga ge go gu ha he hi ho ja jo ka ke ki ko la le li lo lu ma me "
    "mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we wi ya yo za ze "
    "zi zo ax el ist or an er ock um ix sta gra pli tro fen mar dex lum"
).split()
MONTHS = ("January February March April May June July August September October November December").split()
AIRLINES = ("AB", "UA", "BA", "LH", "AF", "DL", "KL", "SK")
# Slots whose values are invented a third of the time, as names or as words, so that copying is learned and no list is.
PROPER = {"place", "company", "person", "contest", "product", "vehicle", "book", "title"}
COMMON = {"topic", "subject", "event", "task", "phrase", "scene", "thing", "sheetname", "symptom", "material"}
NUMBER_SLOTS = {"int": "integer", "num": "number"}


@dataclass(frozen=True)
class Recipe:
    """What share of the data has which shape. `skew` < 1 weights the place of equivalent tools by skew ** rank."""

    fewest: int = 2
    most: int = 10
    random_names: float = 0.3
    equivalents: float = 0.2
    decisions: tuple[int, int] = (6, 9)
    skew: float = 1.0
    lexical: float = 0.16
    wordy: float = 0.14
    toolless: float = 0.02
    unserved: float = 0.11
    strange: float = 0.35
    suite: float = 0.15  # share of sittings that begin with a tool of the suite
    kin: float = 0.35  # share in which several tools come from one group


class Generator:
    def __init__(self, seed: int, data: Catalogue | None = None) -> None:
        self.random = random.Random(seed)
        self.data = data or kinds.load()
        self.groups: dict[str, list[Kind]] = {}
        for kind in self.data.kinds:
            self.groups.setdefault(kind.group, []).append(kind)
        overlaps = kinds.parse_groups(kinds.KINDS / "overlaps.txt")
        self.rivals: dict[str, set[str]] = {kind.name: {kind.name} for kind in self.data.kinds}
        for group in overlaps:
            for name in group:
                if name in self.rivals:
                    self.rivals[name] |= set(group)
        self.words = self._words()
        self.imperatives = BASE_VERBS | {verb.split(" ")[0] for group in self.data.verbs for verb in group} - {
            "new",
            "on",
        }
        self.makers: dict[str, Callable[[], str]] = {
            "int": lambda: str(self.random.choice([self.random.randint(2, 20), self.random.randint(20, 999)])),
            "num": self._number,
            "time": self._time,
            "date": self._date,
            "id": self._reference,
            "fact": self._fact,
            "expr": self._expression,
            "equation": self._equation,
            "flight": lambda: f"{self.random.choice(AIRLINES)}{self.random.randint(100, 999)}",
            "phone": lambda: "".join(self.random.choice("0123456789") for _ in range(self.random.randint(6, 10))),
            "ip": lambda: ".".join(str(self.random.randint(1, 254)) for _ in range(4)),
            "iban": lambda: self.random.choice(["DE", "FR", "GB"]) + str(self.random.randint(10**9, 10**10)),
        }

    # -- sittings ------------------------------------------------------------------------------------------------

    def sitting(self, recipe: Recipe) -> Sitting:
        r = self.random
        shape = r.random()
        if shape < recipe.toolless:
            return self._toolless()
        if shape < recipe.toolless + recipe.lexical:
            return self._lexical(recipe)
        if shape < recipe.toolless + recipe.lexical + recipe.wordy:
            return self._wordy(recipe)
        return self._catalogue_sitting(recipe)

    def _system(self) -> str:
        return self.random.choice(self.data.systems) if self.random.random() < 0.3 else ""

    def _toolless(self) -> Sitting:
        decisions = []
        for _ in range(6):
            if self.random.random() < 0.6:
                decisions.append(self._chat())
            else:
                request, _ = self.request(self.random.choice(self.data.kinds))
                decisions.append(Decision(turn("user", request), NO_TOOLS))
        return Sitting(self._system(), (), tuple(decisions))

    def _catalogue_sitting(self, recipe: Recipe) -> Sitting:
        r = self.random
        count = r.randint(recipe.fewest, recipe.most)
        chosen = self._distinct_kinds(count, recipe)
        if count > 2 and r.random() < recipe.equivalents:
            twins = r.randint(2, min(5, count))
            chosen = chosen[: count - twins + 1] + [chosen[0]] * (twins - 1)
        r.shuffle(chosen)
        tools: list[Tool] = []
        if r.random() < recipe.strange:
            strange = {kind.name: self.estranged(kind) for kind in chosen if r.random() < 0.8}
            chosen = [strange.get(kind.name, kind) for kind in chosen]
        for kind in chosen:
            tools.append(self.tool(kind, recipe.random_names, {tool.name for tool in tools}))
        decisions = []
        for _ in range(r.randint(*recipe.decisions)):
            shape = r.random()
            if shape < 0.06:
                decisions.append(self._chat(knows=any(kind.name in GENERAL for kind in chosen)))
            elif shape < 0.06 + recipe.unserved:
                decisions.append(self._unserved(chosen))
            else:
                decisions.append(self._served(chosen, tools, recipe.skew))
        return Sitting(self._system(), tuple(tools), tuple(decisions))

    def _distinct_kinds(self, count: int, recipe: Recipe) -> list[Kind]:
        """Kinds of which no two serve the same request."""
        r = self.random
        chosen = r.sample(self.groups["suite"], 1) if r.random() < recipe.suite else [self._any_kind()]
        kin = self.groups[chosen[0].group] if r.random() < recipe.kin else []
        for _ in range(200):
            if len(chosen) == count:
                break
            kind = r.choice(kin) if kin and r.random() < 0.5 else self._any_kind()
            if not any(
                kind.name in self.rivals[other.name] or other.name in self.rivals[kind.name] for other in chosen
            ):
                chosen.append(kind)
        return chosen

    def _any_kind(self) -> Kind:
        """Entities are many but alike: they are drawn less often than the kinds written one by one."""
        r = self.random
        if r.random() < 0.09:
            return r.choice(self.groups["suite"])
        while True:
            kind = r.choice(self.data.kinds)
            if not kind.group.startswith("entity:") or r.random() < 0.6:
                return kind

    def _served(self, chosen: list[Kind], tools: list[Tool], skew: float) -> Decision:
        r = self.random
        kind = r.choice(chosen)
        places = [index for index, other in enumerate(chosen) if other.name == kind.name]
        right = r.choices(places, [skew**rank for rank in range(len(places))])[0]
        request, values = self.request(kind)
        call = Call(tools[right].name, self._bind(kind, tools[right], values))
        before = turn("user", self._dress(request))
        shape = r.random()
        if shape < 0.10:
            result = self._result()
            before += turn("assistant", call.render()) + turn("tool", result)
            return Decision(before, AFTER_RESULT + quote(result))
        if shape < 0.15:
            before = self._history(chosen, tools) + before
        return Decision(before, call, right)

    def _history(self, chosen: list[Kind], tools: list[Tool]) -> str:
        """An earlier exchange in the same conversation: chat, or a call with its result."""
        if self.random.random() < 0.4:
            said = self._chat(knows=True)
            return said.before + turn("assistant", render_answer(said.answer).removesuffix("<|im_end|>"))
        index = self.random.randrange(len(tools))
        request, values = self.request(chosen[index])
        call = Call(tools[index].name, self._bind(chosen[index], tools[index], values))
        result = self._result()
        exchange = turn("user", request) + turn("assistant", call.render())
        return exchange + turn("tool", result) + turn("assistant", AFTER_RESULT + quote(result))

    def _unserved(self, chosen: list[Kind]) -> Decision:
        offered = {kind.name for kind in chosen}
        taken = set().union(*(self.rivals[name] for name in offered))
        groups = {kind.group for kind in chosen}
        if self.random.random() < (0.6 if offered & GENERAL else 0.25):
            return Decision(turn("user", self._dress(self._act())), NOTHING_FITS)
        for _ in range(100):
            kind = self._any_kind()
            if kind.name in taken or self.rivals[kind.name] & offered or kind.group in groups:
                continue
            if offered & GENERAL and kind.group in FACT_GROUPS and kind.name not in ACTING:
                continue
            break
        request, _ = self.request(self.estranged(kind) if self.random.random() < 0.3 else kind)
        return Decision(turn("user", self._dress(request)), NOTHING_FITS)

    def _act(self) -> str:
        verbs, things = self.random.choice(self.data.acts)
        return self._fill(f"{self.random.choice(verbs)} {self.random.choice(things)}")

    def _chat(self, knows: bool = False) -> Decision:
        """Small talk. Where a tool `knows`, questions of fact are no small talk."""
        said, answers = self.random.choice(self.data.chats)
        while knows and "do not know" in answers[0]:
            said, answers = self.random.choice(self.data.chats)
        text = self.random.choice(said)
        if self.random.random() < 0.5:
            text = text[0].upper() + text[1:]
        if self.random.random() < 0.2:
            text = text.rstrip("?.!")
        return Decision(turn("user", text), self.random.choice(answers))

    def _lexical(self, recipe: Recipe) -> Sitting:
        """Verb and noun from the lists of near-synonyms: the description takes one of a group, the request another."""
        r = self.random
        count = r.randint(recipe.fewest, recipe.most)
        nouns = r.sample(self.data.nouns, count)
        one_verb = r.choice(self.data.verbs)
        same_noun = r.random() < 0.25 and count <= 6
        verbs = r.sample(self.data.verbs, count)
        pairs = [
            (verb if same_noun or r.random() < 0.6 else one_verb, nouns[0] if same_noun else noun)
            for verb, noun in zip(verbs, nouns, strict=True)
        ]
        tools: list[Tool] = []
        for verb, noun in pairs:
            v, n = r.choice(verb[:2]), r.choice(noun)
            action = v.replace(" ", "_")
            thing = n.replace(" ", "_")
            name = r.choice(
                [f"{action}_{thing}", f"{thing}_{action}", thing, f"{action}{thing.title().replace('_', '')}"]
            )
            if r.random() < max(recipe.random_names, 0.2):
                name = self.random_name()
            while any(tool.name == name for tool in tools):
                name = self.random_name()
            text = r.choice(
                [
                    "{v} a {n}",
                    "{v} the {n} with the given number",
                    "{v} any {n}",
                    "{v} one {n}",
                    "{n}: {v} it",
                    "{v} {n}",
                ]
            )
            # Mostly as described, sometimes with another word of the noun's group in place of the name's.
            described = text.format(v=v, n=n if r.random() < 0.6 else r.choice(noun))
            parameter = r.choice(["id", "name", "number", "key", "reference", "which"])
            tools.append(Tool(name, self.describe((described,), ()), (Parameter(parameter),)))
        decisions = []
        for _ in range(r.randint(*recipe.decisions)):
            right = r.randrange(count)
            verb, noun = pairs[right]
            value = r.choice([self._reference(), self.value("person"), self.value("title"), str(r.randint(2, 999))])
            v = verb[0] if r.random() < 0.5 else r.choice(verb)
            n = r.choice(noun)
            text = r.choice(
                [
                    "{v} the {n} {x}",
                    "{v} {n} {x}",
                    "{v} my {n} called {x}",
                    "I want to {v} the {n} {x}",
                    "could you {v} {n} {x}?",
                    "there is a {n} {x}, {v} it",
                    "{v} {x}, it is a {n}",
                    "what about the {n} {x}? {v} it",
                    "the {n} {x} is the one to {v}",
                ]
            )
            call = Call(tools[right].name, {tools[right].parameters[0].name: value})
            decisions.append(Decision(turn("user", self._dress(text.format(v=v, n=n, x=value))), call, right))
        return Sitting(self._system(), tuple(tools), tuple(decisions))

    def _wordy(self, recipe: Recipe) -> Sitting:
        """Descriptions of arbitrary words, requests that share some of them: pure reading, no meaning to lean on."""
        r = self.random
        count = r.randint(recipe.fewest, recipe.most)
        longest = 3 if recipe.most <= 3 else 6
        bags = [[self._word() for _ in range(r.randint(1, longest))] for _ in range(count)]
        forms = ("{}", "{}", "Tool for {}", "Use this for {}", "Handles {}", "Anything about {}", "{} service")
        tools: list[Tool] = []
        for bag in bags:
            name = self.random_name()
            while any(tool.name == name for tool in tools):
                name = self.random_name()
            if r.random() < 0.15:
                name, description = "_".join(bag[:3]), ""
                if any(tool.name == name for tool in tools):
                    name = self.random_name()
                    description = " ".join(bag)
            else:
                description = self._finish(r.choice(forms).format(" ".join(bag)))
            tools.append(Tool(name, description, (Parameter(self._word()),)))
        decisions = []
        for _ in range(r.randint(*recipe.decisions)):
            right = r.randrange(count)
            words = bags[right][:3] if not tools[right].description else list(bags[right])
            r.shuffle(words)
            words = words[: r.randint(1, len(words))]
            value = r.choice([str(r.randint(1, 999)), self._pseudo(), self.value("person"), self.value("place")])
            text = r.choice(
                [
                    "{w} {x}",
                    "please {w} {x}",
                    "I need {w} for {x}",
                    "{w} with {x}",
                    "can you do {w} on {x}?",
                    "{x}: {w}",
                ]
            )
            request = self._dress(text.format(w=" ".join(words), x=value))
            call = Call(tools[right].name, {tools[right].parameters[0].name: value})
            decisions.append(Decision(turn("user", request), call, right))
        return Sitting(self._system(), tuple(tools), tuple(decisions))

    # -- tools ---------------------------------------------------------------------------------------------------

    def tool(self, kind: Kind, random_names: float, taken: set[str]) -> Tool:
        r = self.random
        parameters = [self._parameter(argument) for argument in kind.arguments]
        if r.random() < 0.25:
            names = {parameter.name for parameter in parameters}
            extras = [extra for extra in EXTRAS if extra[0] not in names]
            parameters += [Parameter(name, type_, False) for name, type_ in r.sample(extras, r.randint(1, 3))]
        name = self.random_name() if r.random() < random_names else self._tool_name(kind)
        while name in taken:
            name = self._tool_name(kind) if r.random() < 0.5 else self.random_name()
        description = (
            "" if r.random() < 0.03 and name in kind.names else self.describe(kind.descriptions, kind.arguments)
        )
        return Tool(name, description, tuple(parameters))

    def estranged(self, kind: Kind) -> Kind:
        """The kind with words that its descriptions and requests share replaced by invented ones, or as it is.

        So sentences stay ordinary and values stay what they are, but the right tool is found by reading alone, as
        where a kind was never seen.
        """
        r = self.random
        said = [_content(request) for request in kind.requests]
        described = [_content(description) for description in kind.descriptions]
        shared = sorted(set().union(*said) & set().union(*described))
        if not shared:
            return kind
        key, *others = r.sample(shared, len(shared))
        swapped = {word: self._strange_word() for word in (key, *(word for word in others if r.random() < 0.6))}
        pattern = re.compile(r"(?<![a-z{])(" + "|".join(swapped) + r")(s?)(?![a-z}])", re.IGNORECASE)

        def swap(text: str) -> str:
            return pattern.sub(lambda found: like(swapped[found[1].lower()], found[1]) + found[2], text)

        def kept(texts: tuple[str, ...], words: list[set[str]]) -> tuple[str, ...]:
            return tuple(swap(text) for text, found in zip(texts, words, strict=True) if key in found)

        return replace(
            kind,
            names=tuple(swap(name) for name in kind.names),
            descriptions=kept(kind.descriptions, described),
            requests=kept(kind.requests, said),
        )

    def _strange_word(self) -> str:
        """Invented, of the halves of two words, or any word."""
        shape = self.random.random()
        if shape < 0.4:
            return self._pseudo()
        if shape < 0.75:
            first, second = self.random.choice(self.words), self.random.choice(self.words)
            return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
        return self.random.choice(self.words)

    def _parameter(self, argument: Argument) -> Parameter:
        r = self.random
        name = argument.key if r.random() < 0.4 else r.choice(argument.names)
        if argument.slot.startswith("enum:"):
            choices = argument.slot.removeprefix("enum:").split(";")
            return Parameter(name, "string", argument.required, tuple(choices) if r.random() < 0.7 else ())
        type_ = NUMBER_SLOTS.get(argument.slot, "string")
        return Parameter(name, type_ if r.random() < 0.8 else "string", argument.required)

    def _tool_name(self, kind: Kind) -> str:
        r = self.random
        name = r.choice(kind.names)
        style = r.random()
        if style < 0.08:
            return r.choice(VENDORS) + "_" + name
        if style < 0.12:
            return name + r.choice(["_v2", "_tool", "_api", "2"])
        if style < 0.2:
            first, *rest = name.split("_")
            return first + "".join(word.capitalize() for word in rest)
        if style < 0.24:
            return name.replace("_", "-")
        return name

    def describe(self, phrases: tuple[str, ...], arguments: tuple[Argument, ...]) -> str:
        """3 to 45 words: one phrase, or several with sentences about arguments and results around them."""
        r = self.random
        length = r.random()
        wanted = 1 if length < 0.6 else 2 if length < 0.85 else 4
        parts = [self._phrase(phrase) for phrase in r.sample(phrases, min(wanted, len(phrases)))]
        if wanted == 4 or (wanted == 2 and r.random() < 0.3):
            if arguments:
                listed = " and ".join(argument.key.replace("_", " ") for argument in arguments)
                parts.insert(1, r.choice(["Takes {}", "Needs {}", "Give it {}", "Arguments: {}"]).format(listed))
            parts += r.sample(self.data.tails, r.randint(1, 2 if wanted == 4 else 1))
        elif r.random() < 0.06:
            parts.append(r.choice(self.data.tails))
        if len(parts) == 1:
            return self._finish(parts[0])
        return " ".join(part if part.endswith(".") else part + "." for part in parts)

    def _phrase(self, phrase: str) -> str:
        r = self.random
        first, _, rest = phrase.partition(" ")
        if first.lower() not in BASE_VERBS or not rest:
            return phrase
        style = r.random()
        if style < 0.2:
            return third_person(first) + " " + rest
        if style < 0.4:
            return r.choice(LEADS).format(first.lower() + " " + rest)
        return phrase

    def _finish(self, text: str) -> str:
        r = self.random
        if r.random() < 0.3:
            text += "."
        if r.random() < 0.7:
            return text[0].upper() + text[1:]
        return text

    def random_name(self) -> str:
        r = self.random
        if r.random() < 0.12:
            stem = r.choice(["tool", "fn", "function", "api", "helper", "op", "t"])
            return f"{stem}_{r.choice([r.randint(1, 99), *'abcdefgh'])}"
        words = [self._word() for _ in range(r.choice([1, 2, 2, 2, 3]))]
        style = r.random()
        name = "_".join(words) if style < 0.7 else "-".join(words)
        if style > 0.85:
            name = words[0] + "".join(word.capitalize() for word in words[1:])
        return name + str(r.randint(1, 99)) if r.random() < 0.08 else name

    # -- requests and values -------------------------------------------------------------------------------------

    def request(self, kind: Kind) -> tuple[str, dict[str, str]]:
        """A request that this kind serves, and the values (as written) of the arguments it names."""
        template = self.random.choice(kind.requests)
        slots = {argument.key: argument.slot for argument in kind.arguments}
        values: dict[str, str] = {}
        for key in kinds.PLACEHOLDER.findall(template):
            while key in slots and (key not in values or list(values.values()).count(values[key]) > 1):
                values[key] = self.value(slots[key])
        request = kinds.PLACEHOLDER.sub(lambda match: values.get(match[1]) or self.value(match[1]), template)
        return request, values | {key: request for key, slot in slots.items() if slot == kinds.WHOLE}

    def value(self, slot: str) -> str:
        slot = self.random.choice(slot.split("|"))
        if slot.startswith("enum:"):
            return self.random.choice(slot.removeprefix("enum:").split(";"))
        if slot in self.makers:
            return self.makers[slot]()
        if (
            slot in ("word", "folder", "account", "package", "repo", "branch", "table", "column", "medicine")
            and self.random.random() < 0.3
        ):
            return self._word()
        if slot in PROPER and self.random.random() < 0.3:
            return " ".join(self._pseudo().capitalize() for _ in range(self.random.choice([1, 1, 2])))
        if slot in COMMON and self.random.random() < 0.3:
            return " ".join(self._word() for _ in range(self.random.randint(1, 4)))
        if slot in ("file", "sheet", "image", "audio", "video") and self.random.random() < 0.5:
            ending = self.random.choice(self.data.slots[slot]).rpartition(".")[2]
            folder = self.random.choice(["", "", "data/", "/tmp/", "docs/"])  # noqa: S108
            return f"{folder}{self._word()}.{ending}"
        if slot in ("page", "site") and self.random.random() < 0.5:
            host = f"{self._word()}.{self.random.choice(['com', 'org', 'net', 'io', 'de', 'dev'])}"
            if slot == "site":
                return host
            path = self.random.choice(
                ["", "/", "/about", f"/{self._word()}", f"/{self._word()}/{self.random.randint(1, 99)}"]
            )
            return self.random.choice(["https://", "http://", "https://www.", ""]) + host + path
        return self._fill(self.random.choice(self.data.slots[slot]))

    def _fill(self, pattern: str) -> str:
        """The pattern with each {slot} in it filled in."""
        return kinds.PLACEHOLDER.sub(lambda match: self.value(match[1]), pattern)

    def _bind(self, kind: Kind, tool: Tool, values: dict[str, str]) -> dict[str, Value]:
        bound: dict[str, Value] = {}
        for argument, parameter in zip(kind.arguments, tool.parameters, strict=False):
            if argument.key in values:
                bound[parameter.name] = typed(values[argument.key], parameter.type)
        return bound

    def _dress(self, request: str) -> str:
        """The same request as different people would put it."""
        r = self.random
        asks = request.endswith("?")
        first = request.split(" ")[0]
        if not asks and first in self.imperatives and r.random() < 0.4:
            opener = r.choice(OPENERS)
            request = opener + request[0].lower() + request[1:]
            if opener.startswith(("can", "could", "would")) and r.random() < 0.7:
                request += "?"
        elif r.random() < 0.12:
            request = r.choice(GREETINGS) + request
        if not request.endswith("?") and r.random() < 0.2:
            request += r.choice(CLOSERS)
        if asks and r.random() < 0.2:
            request = request[:-1]
        if r.random() < 0.4:
            request = request[0].upper() + request[1:]
        if not request.endswith("?") and r.random() < 0.25:
            request += "."
        if r.random() < 0.1:
            request = f"{r.choice(self.data.contexts)} {request}"
        elif r.random() < 0.06:
            request = f"{request if request[-1] in '.?' else request + '.'} {r.choice(self.data.contexts)}"
        return request

    def _result(self) -> str:
        lines = self.random.sample(self.data.results, self.random.choice([1, 1, 1, 2, 3]))
        text = "\n".join(lines)
        if self.random.random() < 0.15:
            text = " ".join(self._word() for _ in range(self.random.randint(3, 30)))
        return re.sub(
            r"{(num|person|place|file|topic|day|company|currency|id|phrase|coin|word|mail|country|column)}",
            lambda match: self.value(match[1]),
            text,
        ).replace("\\n", "\n")

    def _words(self) -> list[str]:
        found: set[str] = set()
        for kind in self.data.kinds:
            if not kind.group.startswith("entity:"):
                text = " ".join(kind.descriptions + kind.requests)
                found.update(re.findall(r"\b[a-z]{3,}\b", kinds.PLACEHOLDER.sub("", text)))
        for group in self.data.nouns + self.data.verbs:
            found.update(word for phrase in group for word in phrase.split() if len(word) > 2)
        return sorted(found)

    def _word(self) -> str:
        return self.random.choice(self.words) if self.random.random() < 0.65 else self._pseudo()

    def _pseudo(self) -> str:
        return "".join(self.random.choice(SYLLABLES) for _ in range(self.random.randint(2, 4)))

    def _fact(self) -> str:
        return self._fill(self.random.choice(self.data.facts))

    def _small(self) -> int:
        return self.random.randint(2, 40)

    def _number(self) -> str:
        r = self.random
        return r.choice([str(r.randint(2, 20)), str(r.randint(20, 9999)), f"{r.randint(1, 99)}.{r.randint(1, 9)}"])

    def _time(self) -> str:
        r = self.random
        return r.choice(
            [f"{r.randint(1, 12)}{r.choice(['am', 'pm'])}", f"{r.randint(0, 23)}:{r.choice(['00', '15', '30', '45'])}"]
        )

    def _date(self) -> str:
        r = self.random
        iso = f"{r.randint(2019, 2027)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}"
        return r.choice([iso, f"{r.choice(MONTHS)} {r.randint(1, 28)}", f"{r.randint(1, 28)} {r.choice(MONTHS)}"])

    def _reference(self) -> str:
        r = self.random
        letters = "".join(r.choice(string.ascii_uppercase) for _ in range(2))
        return r.choice([str(r.randint(1, 9999)), f"{letters}{r.randint(100, 9999)}", f"{letters}-{r.randint(1, 999)}"])

    def _equation(self) -> str:
        return f"{self._small()}x {self.random.choice('+-')} {self._small()} = {self._small()}"

    def _expression(self) -> str:
        r = self.random
        sign = r.choice(["plus", "times", "minus", "divided by", "+", "*", "-", "/"])
        return f"{r.randint(2, 999)} {sign} {r.randint(2, 999)}"


BASE_VERBS = set(
    (
        "get look report search run find query read scrape fetch extract open download execute evaluate "
        "filter work ask send compose deliver write create schedule add put book list show check suggest set "
        "remind start count wake note save take call dial translate convert turn detect identify proofread "
        "correct make summarise sign draft reserve tell record log let calculate compute estimate split share "
        "transfer pay wire locate delete remove move copy rename give compress pack unpack compare hash "
        "recognise merge join print upload store back empty commit check clone lint format reindent build "
        "compile deploy roll ship restart stop kill end install test validate encode generate pick configure "
        "dump review explain profile measure resolve ping take render publish encode rent insure track solve "
        "draw plot clean fit train describe caption resize scale rotate cut transcribe trim submit register "
        "edit change erase approve accept sign cancel void assign hand export locate "
    ).split()
)


def _content(text: str) -> set[str]:
    """The words of a text that could name what it is about, without a plural's ending."""
    words = re.findall(r"[a-z]{3,}", kinds.PLACEHOLDER.sub(" ", text).lower())
    return {word.removesuffix("s") for word in words} - COMMON_WORDS - BASE_VERBS


def like(word: str, model: str) -> str:
    """The word with a capital if the model has one."""
    return word.capitalize() if model[:1].isupper() else word


def third_person(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + "s"


def typed(text: str, type_: str) -> Value:
    """The value as JSON carries it: a number where the parameter is one and the text is one."""
    if type_ == "integer" and text.isdigit():
        return int(text)
    if type_ == "number":
        try:
            return int(text) if text.isdigit() else float(text)
        except ValueError:
            return text
    return text


def quote(result: str) -> str:
    """What the model repeats of a tool's result: the first line, at most 24 words of it."""
    first = result.strip().split("\n")[0]
    return " ".join(first.split(" ")[:QUOTE_WORDS])
