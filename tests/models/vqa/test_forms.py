"""Names of forms, and the arithmetic of answers by hand."""

import math

import pytest
import torch

from stablepref.models.families import family_member
from stablepref.models.registry import check_model, entry_of
from stablepref.models.vqa.answers import Answers, contexts, penalised
from stablepref.models.vqa.forms import FORMS, choice_of, form_of


def test_a_name_says_model_form_and_question() -> None:
    plain = choice_of("vqa:Qwen/Qwen2.5-VL-7B-Instruct")
    assert plain == ("Qwen/Qwen2.5-VL-7B-Instruct", FORMS["clean"])
    full = choice_of("vqa:a,b/c,form=geneval2,question=Is it {}, form=x?")
    assert full.model == "a,b/c"
    assert full.form.question == "Is it {}, form=x?"
    assert (full.form.name, full.form.answers) == ("geneval2", FORMS["geneval2"].answers)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vqa:m,form=best", "no form 'best'.*clean, t2v-3.0, t2v-3.1, geneval2"),
        ("vqa:m,question=Is it so?", "expected one {}"),
        ("vqa:m,question={} {}", "expected one {}"),
        ("vqa:form=clean", "names no model"),
    ],
)
def test_bad_names_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        choice_of(name)


def test_names_of_families_are_known() -> None:
    check_model("vqa:someone/model", None)
    assert entry_of("vqa:someone/model").name == "vqa:someone/model"
    assert family_member("vqa:") is None
    assert family_member("other:model") is None
    with pytest.raises(ValueError, match="vqa:MODEL"):
        check_model("vqa:", None)


def test_every_form_asks_about_its_prompt() -> None:
    for name in FORMS:
        assert form_of(name).question.count("{}") == 1


def log_probs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_answers_by_hand() -> None:
    # Over the tokens 0 to 3. The answers "0" and "1 2"; after "1" the model is sure to say "2".
    start, after = [0.5, 0.2, 0.2, 0.1], [0.0, 0.0, 1.0, 0.0]
    table = {(1,): log_probs(start, after)}
    whole = Answers(((0,), (1, 2)), "whole")
    assert contexts([whole]) == ((1,),)
    assert whole.probability(table).item() == pytest.approx(0.5 + 0.2 * 1)
    mean = Answers(((1, 2),), "mean")
    assert mean.probability(table).item() == pytest.approx(math.sqrt(0.2 * 1))
    # Two spellings that begin alike: once, or as often as there are spellings.
    first = {(): log_probs(start)}
    assert contexts([Answers(((0,), (1, 2), (1, 3)), "first")]) == ((),)
    assert Answers(((0,), (1, 2), (1, 3)), "first").probability(first).item() == pytest.approx(0.7)
    each = Answers(((0,), (1, 2), (1, 3)), "first-each").probability(first)
    assert each.item() == pytest.approx(0.9)


def test_contexts_are_the_fewest_that_show_every_token() -> None:
    several = Answers(((1, 2, 3), (1, 4), (5,), (6, 7)), "whole")
    assert set(contexts([several])) == {(1, 2), (6,)}
    first = Answers(((8, 9),), "first")
    assert set(contexts([several, first])) == {(1, 2), (6,)}  # which show the first token too


def test_equal_spellings_count_once() -> None:
    twice = Answers(((0,), (0,)), "whole")
    assert twice.probability({(): log_probs([0.25, 0.75])}).item() == pytest.approx(0.25)


def test_the_penalty_by_hand() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    found = penalised(logits, [0, 1, 1], 2.0)
    assert found.tolist() == [1.0, -4.0, 1.0]
    assert penalised(logits, [0], 1.0) is logits
