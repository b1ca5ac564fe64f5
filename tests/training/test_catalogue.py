import re
from pathlib import Path

import pytest
import yaml

from training import catalogue

EVAL = Path(catalogue.__file__).parent / "eval"
DATA = catalogue.load()


def everything_written() -> str:
    return "\n".join(path.read_text(encoding="utf-8").lower() for path in sorted(catalogue.KINDS.rglob("*.txt")))


def test_there_are_more_than_three_hundred_kinds_and_no_kind_is_written_twice() -> None:
    assert len(DATA.kinds) > 300
    assert len({kind.name for kind in DATA.kinds}) == len(DATA.kinds)


def test_every_slot_of_every_kind_has_values_or_a_maker() -> None:
    from training.generator import Generator

    makers = Generator(1).makers
    for kind in DATA.kinds:
        for argument in kind.arguments:
            for slot in argument.slot.split("|"):
                if slot == catalogue.WHOLE:
                    continue
                assert slot.startswith("enum:") or slot in DATA.slots or slot in makers, (kind.name, slot)


def test_a_request_that_lacks_a_required_argument_is_refused_by_file_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_text("@ oven : degrees=int\nn oven\nd Heat the oven\nr heat the oven\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.txt: oven: .*degrees"):
        catalogue.parse_kinds(path)


def test_at_least_forty_held_out_kinds_and_none_of_their_names_is_in_the_training_data() -> None:
    held_out = yaml.safe_load((EVAL / "held_out.yaml").read_text(encoding="utf-8"))
    assert len({kind["name"] for kind in held_out}) >= 40
    trained = {name for kind in DATA.kinds for name in (*kind.names, kind.name)}
    assert not trained & {kind["name"] for kind in held_out}


def test_the_words_that_mark_held_out_kinds_stand_nowhere_in_the_training_data() -> None:
    written = set(re.findall(r"[a-z0-9]+", everything_written()))
    for kind in yaml.safe_load((EVAL / "held_out.yaml").read_text(encoding="utf-8")):
        assert kind["unseen"], kind["name"]
        assert not written & set(kind["unseen"]), (kind["name"], written & set(kind["unseen"]))


def test_no_request_of_the_evaluation_is_a_training_request() -> None:
    requests = {re.sub(r"\W+", " ", request.lower()).strip() for kind in DATA.kinds for request in kind.requests}
    for entry in yaml.safe_load((EVAL / "five_tools.yaml").read_text(encoding="utf-8"))["requests"]:
        assert re.sub(r"\W+", " ", entry["ask"].lower()).strip() not in requests
