"""What every policy promises, as rules to run against a live one.

A rule takes the policy and `asked`, six requests that differ, for two replies each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from depo.policies.base import Answer, Policy, Reply, Request, answer_all

Rule = Callable[[Policy, Sequence[Request]], None]


def said(answers: Sequence[Sequence[Reply]]) -> list[list[tuple[str, tuple[int, ...]]]]:
    return [[(reply.text, reply.token_ids) for reply in replies] for replies in answers]


def drain(policy: Policy) -> dict[object, Answer]:
    answers: dict[object, Answer] = {}
    while batch := policy.collect():
        assert not answers.keys() & {answer.key for answer in batch}, "answered twice"
        answers.update({answer.key: answer for answer in batch})
    return answers


def equal_requests_get_equal_replies(policy: Policy, asked: Sequence[Request]) -> None:
    assert said(answer_all(policy, asked)) == said(answer_all(policy, asked))


def every_request_gets_its_n_replies(policy: Policy, asked: Sequence[Request]) -> None:
    answers = answer_all(policy, asked)
    assert [len(replies) for replies in answers] == [request.n for request in asked]
    assert len({reply.text for replies in answers for reply in replies}) > 1


def order_and_company_change_nothing(policy: Policy, asked: Sequence[Request]) -> None:
    together = said(answer_all(policy, asked))
    assert [said(answer_all(policy, [request]))[0] for request in asked] == together
    assert said(answer_all(policy, asked[::-1]))[::-1] == together


def requests_join_those_in_flight(policy: Policy, asked: Sequence[Request]) -> None:
    expected = said(answer_all(policy, asked))
    answers: dict[object, Answer] = {}
    for key, request in enumerate(asked):
        policy.submit(key, request)
        if key % 2:
            answers.update({answer.key: answer for answer in policy.collect()})
    answers.update(drain(policy))
    assert said([answers[key].replies for key in range(len(asked))]) == expected


def a_withdrawn_request_is_forgotten(policy: Policy, asked: Sequence[Request]) -> None:
    expected = said(answer_all(policy, asked))
    for key, request in enumerate(asked):
        policy.submit(key, request)
    policy.withdraw(1)
    policy.withdraw("never submitted")
    policy.submit("later", asked[1])
    answers = drain(policy)
    assert answers.keys() == {0, 2, 3, 4, 5, "later"}
    assert said([answers["later"].replies, answers[5].replies]) == [expected[1], expected[5]]
    policy.submit(1, asked[1])
    assert said([drain(policy)[1].replies]) == [expected[1]]


def nothing_in_flight_is_nothing_to_collect(policy: Policy, asked: Sequence[Request]) -> None:
    assert policy.collect() == []
    policy.submit(0, asked[0])
    policy.withdraw(0)
    assert policy.collect() == []


def usage_adds_up(policy: Policy, asked: Sequence[Request]) -> None:
    before = (policy.usage.requests, policy.usage.tokens, policy.usage.prompt_tokens, policy.usage.seconds)
    answers = answer_all(policy, asked)
    after = (policy.usage.requests, policy.usage.tokens, policy.usage.prompt_tokens, policy.usage.seconds)
    requests, tokens, prompt_tokens, seconds = (b - a for a, b in zip(before, after, strict=True))
    assert requests == len(asked)
    received = [reply.num_tokens for replies in answers for reply in replies]
    # An endpoint's bill may count the token that ends a reply.
    assert 0 < sum(received) <= tokens <= sum(received) + len(received)
    assert prompt_tokens == sum(replies[0].input_tokens for replies in answers)
    assert seconds >= 0


CONTRACT: list[Rule] = [
    equal_requests_get_equal_replies,
    every_request_gets_its_n_replies,
    order_and_company_change_nothing,
    requests_join_those_in_flight,
    a_withdrawn_request_is_forgotten,
    nothing_in_flight_is_nothing_to_collect,
    usage_adds_up,
]
