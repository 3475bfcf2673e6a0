"""Shortest ways through a window, as minigrid's turns and steps.

A state is a cell and a heading, relative to the agent's: ahead, right, back, left. Sets of states
are four window masks, one a heading, so that a whole layer of a search is a few shifts.
"""

from __future__ import annotations

from depo.envs.babyai.board import Board
from depo.envs.babyai.mission import LEFT, RIGHT, STEP

Layer = tuple[int, int, int, int]
FORWARD_FIRST = (STEP, LEFT, RIGHT)


def reachable(free: int, board: Board) -> int:
    """The cells of `free`, a window mask, that the agent can get to."""
    side, reached = board.side, board.here
    while True:
        grown = (reached | reached << 1 | reached >> 1 | reached << side | reached >> side) & free
        if grown == reached:
            return reached
        reached = grown


def beside(cells: int, board: Board) -> int:
    """The cells that can be faced from `cells`."""
    side = board.side
    return cells << 1 | cells >> 1 | cells << side | cells >> side


def facing(target: int, free: int, board: Board) -> Layer:
    """The states in which the agent faces a cell."""
    side = board.side
    return target >> side & free, target >> 1 & free, target << side & free, target << 1 & free


def layers(goals: Layer, free: int, board: Board) -> list[Layer]:
    """The states from which `goals` are 0, 1, 2, ... moves away, up to the layer that holds the agent.

    The agent must be able to get there.
    """
    side, here = board.side, board.here
    a, b, c, d = goals
    seen_a, seen_b, seen_c, seen_d = goals
    found = [goals]
    while not a & here:
        a, b, c, d = (
            (a >> side & free | b | d) & ~seen_a,
            (b >> 1 & free | a | c) & ~seen_b,
            (c << side & free | b | d) & ~seen_c,
            (d << 1 & free | a | c) & ~seen_d,
        )
        seen_a |= a
        seen_b |= b
        seen_c |= c
        seen_d |= d
        found.append((a, b, c, d))
    return found


def follow(found: list[Layer], order: tuple[int, ...], board: Board) -> tuple[list[int], int, int]:
    """The shortest way along `layers` that comes first by `order` of its moves: (moves, cell, heading)."""
    cell, heading, side = board.here, 0, board.side
    moves = []
    for layer in found[-2::-1]:
        for move in order:
            if move == STEP:
                after, turned = (cell << side, cell << 1, cell >> side, cell >> 1)[heading], heading
            else:
                after, turned = cell, (heading + (1 if move == RIGHT else 3)) % 4
            if layer[turned] & after:
                cell, heading = after, turned
                moves.append(move)
                break
    return moves, cell, heading


def shortest(goals: Layer, free: int, board: Board) -> list[int]:
    """The moves of a breadth-first search that tries step, left, right, to the first goal it finds.

    Of all shortest ways, such a search takes the first by that order of moves.
    """
    return follow(layers(goals, free, board), FORWARD_FIRST, board)[0]
