"""All codes of a key as one tree of tokens, in which each beginning that codes share stands once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class TriePart(NamedTuple):
    """Consecutive nodes of a `CodeTrie`, and above them those nodes that they descend from.

    Indices are those within the part: its A ancestors, root first, then its n own nodes.

    Parameters
    ----------
    tokens, depths
        Int64 [A + n].
    ancestors
        Int64 [A + n, S]: the node of each depth that a node descends from, itself at its own depth; below that it is
        the node itself, which does not count.
    first
        A, the number of nodes that belong to another part.
    edges
        Which edges of the tree start at the part's own nodes.
    edge_nodes, edge_tokens
        Int64, one for each of these edges: where it starts, and its token.
    """

    tokens: np.ndarray
    depths: np.ndarray
    ancestors: np.ndarray
    first: int
    edges: slice
    edge_nodes: np.ndarray
    edge_tokens: np.ndarray


class CodeTrie:
    """The tree. A node is a beginning of 0 to S - 1 tokens; an edge is a beginning of 1 to S tokens.

    Nodes stand in the order in which one walks through the tree, each before its descendants, and edges in the order of
    the nodes at which they start.

    Parameters
    ----------
    blocks
        Tokens of every code, int64 [C, S]; two codes may have the same.

    Attributes
    ----------
    tokens, depths
        The last token of each node's beginning (0 for the root) and its length, int64 [N].
    ancestors
        Int64 [N, S], as in `TriePart`.
    edge_nodes, edge_tokens
        Int64 [E]: where an edge starts, and its token.
    code_edges
        The edges that spell each code, int64 [C, S].
    """

    def __init__(self, blocks: np.ndarray) -> None:
        distinct, code_of = np.unique(blocks, axis=0, return_inverse=True)
        number, size = distinct.shape
        # Of neighbours in this order, whether they differ in the first 0, 1, ..., S tokens: whether that begins here.
        begins = np.ones((number, size + 1), dtype=bool)
        begins[1:, 0] = False
        begins[1:, 1:] = np.logical_or.accumulate(distinct[1:] != distinct[:-1], axis=1)

        def numbered(starts: np.ndarray) -> np.ndarray:
            return np.maximum.accumulate(np.where(starts, np.cumsum(starts).reshape(starts.shape) - 1, 0), axis=0)

        nodes = numbered(begins[:, :-1])
        row, depth = np.nonzero(begins[:, :-1])
        self.depths = depth
        self.tokens = np.where(depth > 0, distinct[row, depth - 1], 0)
        self.ancestors = np.where(np.arange(size) <= depth[:, None], nodes[row], np.arange(len(row))[:, None])

        row, depth = np.nonzero(begins[:, 1:])
        starts = nodes[row, depth]
        order = np.argsort(starts, kind="stable")
        self.edge_nodes, self.edge_tokens = starts[order], distinct[row, depth][order]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self.code_edges = place[numbered(begins[:, 1:])][code_of.reshape(-1)]

    def __len__(self) -> int:
        """N, the number of nodes."""
        return len(self.tokens)

    def parts(self, most: int) -> Iterator[TriePart]:
        """The tree in parts of at most `most` nodes, ancestors not counted."""
        for start in range(0, len(self), most):
            stop = min(start + most, len(self))
            # What the nodes of a part descend from before it, its first node descends from as well.
            above = self.ancestors[start, : self.depths[start]]
            members = np.concatenate([above, np.arange(start, stop)])
            ancestors = self.ancestors[members]
            ancestors = np.where(ancestors >= start, ancestors - start + len(above), self.depths[ancestors])
            edges = slice(*np.searchsorted(self.edge_nodes, [start, stop]).tolist())
            yield TriePart(
                self.tokens[members],
                self.depths[members],
                ancestors,
                len(above),
                edges,
                self.edge_nodes[edges] - start + len(above),
                self.edge_tokens[edges],
            )
