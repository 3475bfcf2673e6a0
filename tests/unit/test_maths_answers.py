"""The judge of maths answers: what is the same however written, and what is nearly the same and wrong."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.envs.maths import judge
from depo.envs.maths.answers import Answer, equal, readable
from depo.envs.maths.env import MathsEnv

SAME = {
    "73": ["**73**", "The answer is **73**.", "`73`", "*73*", "__73__", "$$73$$", r"\(73\)", r"\[73\]",
         "73.", "= 73",
           r"$\boxed{73}$.", r"\boxed{\textbf{73}}", r"\text{73}", "**Answer:** 73", "So 73", "**x = 73**",
         "(73)",
           "70+3 = 73", "f(2) = 73", "x_1 = 73", r"\angle ABC = 73^\circ", "x = 70 + 3 = 73", "073",
         "73.00", "７３", "“73”", "<b>73</b>", r"\underline{\textbf{73}}", r"\mathsf{73}"],
    "5/4": ["1 1/4", "1¼", r"1\frac{1}{4}", r"1 \frac14", r"1\dfrac{1}{4}", "x = 1 1/4", "1 1/4 cups",
         "1.25", "10/8"],
    "-5/4": ["-1 1/4", r"-1\frac{1}{4}", "−1.25", r"-\frac{5}{4}", r"\frac{-5}{4}"],
    "71/6": ["11 5/6"],
    r"(\frac{3}{2}, 2)": ["(1 1/2, 2)", r"\left(1.5, 2\right)", "x = 3/2, y = 2", "(x, y) = (3/2, 2)",
         "3/2, 2"],
    "20": ["20 m/s", "20 km/h", r"20\text{ m/s}", r"20\,\mathrm{cm}^2", "20 cm²", "20cm",
         "20 square inches", "$20",
           r"\$20.00", "20 dollars", "€20", "20 USD", "20%", r"20\%", "20 percent", "20 degrees", "20°",
         r"20^{\circ}",
           r"20 \frac{m}{s}", r"20\,\mathrm{m\,s^{-1}}", r"20\degree",
           "20 feet per second", "x = 20 cm", "about 20", "20 mugs of tea", "20 m/s^2", "20 sq. ft",
         "20 in."],
    "60 mi/h": ["60 mph", "60 miles per hour", "60 miles/hour", "60"],
    "20 ft^2": ["20 square feet", "20 sq. ft", "20 ft²", "20 sq ft", "20 square units"],
    "20 m/s": ["20 meters per second", "20 metres/second", r"20\text{ m/s}", "20 units"],
    "3 hours": ["3 h", "3 hrs", "3 hr", "3 Hours", "3"],
    "1000000": ["1,000,000", r"1{,}000{,}000", r"1\,000\,000", "1 000 000", "10^6", "10**6",
         r"1 \times 10^6", "1e6",
                "1.0E+06", "1 million", "1000 thousand", "1.0 × 10⁶", "100^3"],
    "0.00035": [r"3.5\times10^{-4}", "3.5e-4", "3.5 × 10⁻⁴", "7/20000"],
    r"50\%": ["50", "0.5", "1/2"],
    r"(-\infty, 3)": ["x < 3", "3 > x", "(-oo, 3)", "(−∞, 3)"],
    "(0, 12.5)": ["0 < x < 12.5", r"x \in (0, 12.5)", "x > 0 and x < 12.5"],
    r"[\sqrt{2}, \infty)": [r"m \geq \sqrt{2}", "m >= sqrt(2)", "m ≥ √2"],
    r"(-\infty,3)\cup(5,\infty)": ["x < 3 or x > 5", r"x<3 \text{ or } x>5", "(-∞, 3) U (5, ∞)"],
    "x > 3": [r"\{x \mid x > 3\}", r"\{x \in \mathbb{R} : 3 < x\}", "{x | x > 3}"],
    r"\emptyset": [r"\varnothing", "∅"],
    "x + c": ["c + x", "x+c"],
    "y = mx + c": ["y = c + mx", "y - mx - c = 0"],
    "s + t": ["t+s"],
    r"\frac{4}{3}\pi": ["4/3 pi", "4π/3", "4/3π"],
    r"\frac{x}{2}": ["1/2 x", "0.5x"],
    r"\frac{1+i}{2}": ["0.5+0.5i", "0.5i + 1/2"],
    "3:30 PM": ["3:30 pm", "3:30 p.m."],
    "-4 < x < 4": ["|x| < 4", "(-4, 4)"],
    "p - q": ["p-q", "-q + p", "p−q", "**p - q**"],
    "1, -2": ["-2, 1", "-2 and 1", "x = 1 or x = -2", "x=-2, x=1", r"\{-2, 1\}"],
    r"1 \pm \sqrt{2}": [r"1 - \sqrt{2}, 1 + \sqrt{2}", "1 ± √2"],
    r"\frac{\sqrt{3}}{2}": ["sqrt(3)/2", r"\sqrt{3}/2"],
    r"36\pi": ["36 pi", "36π cubic inches", r"36 \pi \text{ cm}^2"],
    "x^{10}": ["x^10", "x**10", "x^(10)"],
    "2x+4y-3=0": [r"y = -\frac{1}{2}x + \frac{3}{4}"],
    "y = 2x + 1": ["2x + 1", "1 + 2x", "2x - y + 1 = 0"],
    r"\text{(C)}": ["C", "(C)", r"\textbf{C}", "**C**"],
    r"\text{Monday}": ["monday", "**Monday**"],
    "1/3": [r"0.\overline{3}", "0.333333", "0.3333333", "0.(3)", r"0.\bar{3}"],
    r"\sqrt{2}": ["1.414214", "2^{1/2}", "2^(1/2)"],
}  # fmt: skip
DIFFERENT = {
    "1048576": ["1048577", "1048577.0", "1048576.4", "2^{20}+1", "1.048577e6"],
    "1/2000000": ["0", "0.0", "1/2000001", "5e-8"],
    "123456789012345678901": ["123456789012345678902"],
    "10^{-20}": ["10^{-21}", "0"],
    "100!": ["100!+1"],
    r"\sqrt{10^{100}+1}": ["10^{50}"],
    "(123456789, 1)": ["(123456790, 1)"],
    "(0.0000001, 1)": ["(0.0000002, 1)"],
    "1/3": ["0.33", "0.3333", "33%", "1/30"],
    r"\pi": ["3.14", "22/7", "3.1415"],
    "2": ["2 2/3", "2, -2", r"\pm 2", "x^2 = 2", "[2, 3]", "not 2", "2i"],
    "10": ["4 10/3", "10!", "010.5", "1e1e1"],
    "11/4": ["1 1/4", r"1\frac{1}{4}", "11/4/1"],
    "3/2": ["11/2", "1/2", "1"],
    "12": ["1 2", "1, 2", "1 2/1"],
    "1234": ["1, 234", "(1,234)", "1.234"],
    "42": ["42 thousand", "42 or more", "42 or 41", "40+2", r"6 \times 7", "40+2 = 43", "42x", "42 xy",
         "6 squared"],
    "5": ["2x+1=5", "5 squared", "3 + 2", "2+2 = 5", "x < 5", "5 pi"],
    "20 m": ["20 km", "20 feet", "20 square meters", "20 m/s"],
    "3 hours": ["3 min", "3 minutes", "3 days", "3 hours per day"],
    "5 miles": ["5 km", "5 kilometers", "5 mph"],
    "5 dollars": ["5 cents"],
    "2x+1": ["3y = 2x+1", "2x-1"],
    "x^2+y^2=4": ["4", "x^2+y^2=5"],
    "(1,2)": ["(2,1)", "[1,2]", "(1,2]", "12", r"\{1,2\}"],
    "x + c": ["x", "x + d", "x - c"],
    "3+4i": ["3-4i", "3+4.1i", "7"],
    "3:30 PM": ["3:30 AM", "3:31 PM"],
    "no": ["on"],
    "(0,12.5)": ["0 < x < 12.6", r"0 \le x < 12.5"],
    "x<3": ["x>3", "y<3", "3", r"x \le 3"],
    "x<3 or x>5": ["x<3 and x>5", "3<x<5"],
    "x=5": ["y=5", "x=-5"],
    "1,2,2": ["1,1,2", "1,2"],
    "p-q": ["q-p"],
    r"\text{listen}": ["silent"],
    "12_5": ["12_6"],
}  # fmt: skip


@pytest.mark.parametrize(("pairs", "verdict"), [(SAME, True), (DIFFERENT, False)])
def test_an_answer_is_judged_by_its_value_whichever_is_the_recorded_one(pairs, verdict):
    cases = [(gold, said) for gold, all_ in pairs.items() for said in all_]
    found = {(a, b) for a, b in cases if equal(Answer((a,)), b) is not verdict}
    turned = {(a, b) for a, b in cases if equal(Answer((b,)), a) is not verdict}
    assert (found, turned) == (set(), set())
    if verdict:
        assert [said for _, said in cases if not readable(said)] == []


_PIECES = st.lists(
    st.sampled_from(
        ["1", "2", "12", ".5", "/", " ", "-", "+", ",", "(", ")", "[", "x", "=", "<",
         r"\frac{1}{2}", r"\sqrt{2}", r"\pi"]
    ),
    min_size=1,
    max_size=6,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_PIECES, _PIECES)
def test_the_verdict_is_the_same_from_both_sides(one, other):
    assert equal(Answer((one,)), one)
    assert equal(Answer((one,)), other) is equal(Answer((other,)), one)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**30), st.integers(1, 10**9), st.integers(-3, 3))
def test_whole_numbers_and_fractions_are_equal_exactly_or_not_at_all(top, bottom, off):
    for gold, said in (
        (f"{top}", f"{top + off:,}"),
        (f"{top}/{bottom}", rf"\frac{{{top + off}}}{{{bottom}}}"),
    ):
        assert equal(Answer((gold,)), said) is equal(Answer((said,)), gold) is (off == 0)
    mixed = f"{top} {bottom - 1}/{bottom}"
    assert equal(Answer((f"{top * bottom + bottom - 1 + off}/{bottom}",)), mixed) is (off == 0)


@pytest.mark.parametrize("answers", [("3",), (r"\sqrt{2}",), ("3", "4")])
def test_hostile_answers_are_wrong_and_soon(answers, monkeypatch):
    monkeypatch.setattr(judge, "SECONDS", 1)
    judge._helper(os.getpid()).close()  # the next one takes the new limit
    hostile = [
        "9**9**9",
        "1e999999999",
        "(" * 200 + "1",
        "5" * 10**6,
        "1," * 240 + "1",
        "7^{7^{7^7}}, 7^{7^{7^7}}",
    ]
    begin = time.process_time(), os.times().children_user
    assert [text for text in hostile if equal(Answer(answers), text)] == []
    judge._helper(os.getpid()).close()  # its time counts from now on; the next test takes the usual limit
    spent = time.process_time() - begin[0] + os.times().children_user - begin[1]
    assert spent < 60, "seconds of a processor, six starts of the helper among them"


def test_an_expression_of_letters_can_be_an_answer_and_talk_cannot():
    assert all(map(readable, ["p - q", "a/b", "x < y", "A, B", "**x + y**", "x", "Monday"]))
    assert not any(map(readable, ["no idea", "I am", "north-east", "let me think", "?", "well, no"]))
    env = MathsEnv()
    env.reset(env.tasks("train", 1)[0])
    assert env.step("p - q").info == {"valid": True, "success": False}
