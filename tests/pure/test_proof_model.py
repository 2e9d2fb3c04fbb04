"""The visibility rule against a model: commits, late and lost announcements, polls, lag, crashes, failovers.

Whatever happens in whatever order: a result that is proven to be fresh for a node shows every change that
this node knows of.
"""

from collections import deque
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.database.snapshots import Position, Snapshot
from service.results.freshness import NAMES, Generations
from service.results.stored import Proof

TABLES = ("data.a", "data.b")
NODES = st.integers(0, 1)
DIGEST = b"definitions"
SELDOM = st.sampled_from([True, False, False, False, False, False])
"""For what undoes the work of other steps."""


class Server:
    """The primary: numbers of transactions, who runs, what is committed, and the log for its standbys.

    `life` changes with each crash and failover. Numbers that were lost are then given again.
    """

    def __init__(self):
        self.life = 0
        self.next = 100
        self.latest = 99
        self.running = {}
        self.rows = dict.fromkeys(TABLES, frozenset())
        self.wal = 1000
        self.log = []

    def snapshot(self):
        xmax = self.latest + 1
        running = frozenset(each for each in self.running if each < xmax)
        return Snapshot(min(running, default=xmax), xmax, running)

    def commit(self, transaction, mark):
        written = self.running.pop(transaction)
        self.latest = max(self.latest, transaction)
        self.wal += 10
        for table in written:
            self.rows[table] |= {mark}
        self.log.append((self.wal, transaction, dict(self.rows), self.snapshot()))
        return written


class Node:
    def __init__(self, names):
        self.generations = Generations(names=names)
        self.transit = deque()
        self.listening = False
        self.knows = dict.fromkeys(TABLES, frozenset())
        self.asked = None


class ProofMachine(RuleBasedStateMachine):
    @initialize(names=st.sampled_from([2, NAMES]))
    def begin_all(self, names):
        self.server = Server()
        self.durable = (self.server.next, self.server.latest, dict(self.server.rows))
        self.marks = count(1)
        self.nodes = [Node(names), Node(names)]
        self.replayed = 0
        self.results = []
        self.proven = 0
        for number in range(2):
            self.connect(number)
            self.ask(number)
            self.answer(number)

    # Transactions

    @rule(tables=st.sampled_from([{"data.a"}, {"data.a"}, {"data.b"}, set(TABLES), set()]))
    def begin(self, tables):
        self.server.running[self.server.next] = tables
        self.server.next += 1

    @precondition(lambda self: self.server.running)
    @rule(data=st.data(), past_triggers=SELDOM, arrives=st.booleans())
    def commit(self, data, past_triggers, arrives):
        """A change past the triggers is known to a node when it polls."""
        transaction = data.draw(st.sampled_from(sorted(self.server.running)))
        mark = next(self.marks)
        for table in self.server.commit(transaction, mark):
            for node in self.nodes:
                if node.listening and not past_triggers:
                    node.transit.append((table, transaction, mark))
        if arrives:
            for number in range(2):
                self.deliver(number)

    @precondition(lambda self: self.server.running)
    @rule(data=st.data())
    def abort(self, data):
        transaction = data.draw(st.sampled_from(sorted(self.server.running)))
        del self.server.running[transaction]
        self.server.latest = max(self.server.latest, transaction)

    @rule()
    def checkpoint(self):
        """What is durable from now on; later commits are lost in a crash."""
        self.durable = (self.server.next, self.server.latest, dict(self.server.rows))

    @rule(seldom=SELDOM)
    def crash(self, seldom):
        """Or a failover: what was not durable is lost, and its numbers are given again."""
        if not seldom:
            return
        following, latest, rows = self.durable
        life = self.server.life + 1
        self.server = Server()
        self.server.life, self.server.rows = life, dict(rows)
        self.server.next, self.server.latest = following, max(latest, following - 1)
        self.replayed = 0
        for node in self.nodes:
            self.lose(node)

    # Nodes

    def lose(self, node):
        node.listening = False
        node.transit.clear()
        node.asked = None
        node.generations.silent(0.0)

    @rule(number=NODES, seldom=SELDOM)
    def disconnect(self, number, seldom):
        if seldom:
            self.lose(self.nodes[number])

    @precondition(lambda self: any(not node.listening for node in self.nodes))
    @rule(number=NODES, at_once=st.booleans())
    def connect(self, number, at_once=False):
        node = self.nodes[number]
        if not node.listening:
            node.listening = True
            node.generations.heard(0.0)
            node.knows = dict(self.server.rows)
            if at_once:
                self.ask(number)
                self.answer(number)

    @rule(number=NODES)
    def deliver(self, number):
        node = self.nodes[number]
        if node.transit:
            table, transaction, mark = node.transit.popleft()
            node.generations.announced(f"{table} {transaction}", 0.0)
            node.knows[table] |= {mark}

    @rule(number=NODES, table=st.sampled_from(TABLES), transaction=st.integers(90, 200), seldom=SELDOM)
    def invent(self, number, table, transaction, seldom):
        """Everybody may NOTIFY."""
        if seldom and self.nodes[number].listening:
            self.nodes[number].generations.announced(f"{table} {transaction}", 0.0)

    @rule(number=NODES, table=st.sampled_from(TABLES))
    def poll(self, number, table):
        node = self.nodes[number]
        if node.listening and self.server.rows[table] - node.knows[table]:
            node.generations.moved(table, 0.0)
            node.knows[table] |= self.server.rows[table]

    @rule(number=NODES, seldom=SELDOM)
    def renew(self, number, seldom):
        node = self.nodes[number]
        if seldom and node.listening:
            node.generations.renew(0.0)
            node.knows = dict(self.server.rows)

    @rule(number=NODES)
    def ask(self, number):
        """Ask for a position: the server looks now, and the answer comes later.

        Announcements that the server sent before stand before the answer in the stream.
        """
        node = self.nodes[number]
        if node.listening and node.asked is None:
            asked = node.generations.proofs.asking(0.0)
            while node.transit:
                self.deliver(number)
            server = self.server
            node.asked = (
                asked,
                Position("server", server.snapshot(), 0.0, server.wal),
                b"life %d" % server.life,
            )

    @precondition(lambda self: any(node.asked is not None for node in self.nodes))
    @rule(number=NODES)
    def answer(self, number):
        node = self.nodes[number]
        if node.asked is not None:
            node.generations.proofs.seen(*node.asked)
            node.asked = None

    # Results

    def result(self, number, snapshot, rows):
        """A node's result carries what this node knew of the server before the run."""
        life = self.nodes[number].generations.proofs.incarnation
        if life == b"life %d" % self.server.life:
            self.results.append((Proof("server", snapshot, DIGEST, life), dict(rows)))

    @rule(number=NODES)
    def run_on_the_primary(self, number):
        self.result(number, self.server.snapshot(), self.server.rows)

    @precondition(lambda self: self.replayed < len(self.server.log))
    @rule(steps=st.integers(1, 3))
    def replay(self, steps):
        self.replayed = min(self.replayed + steps, len(self.server.log))

    @precondition(lambda self: self.replayed)
    @rule(number=NODES, data=st.data())
    def run_on_a_standby(self, number, data):
        """It knows no running transactions, but answers whether one has been committed."""
        wal, _, rows, snapshot = self.server.log[self.replayed - 1]
        done = [each for _, each, _, _ in self.server.log[: self.replayed]]
        shown = data.draw(st.sets(st.sampled_from(done)))
        self.result(
            number, Snapshot(snapshot.xmin, snapshot.xmin, shown=frozenset(shown), replayed=wal), rows
        )

    @invariant()
    def what_is_proven_shows_all_that_is_known(self):
        for node in getattr(self, "nodes", []):
            if not node.listening:
                continue
            for proof, rows in self.results:
                for table in TABLES:
                    if node.generations.proofs.holds(proof, DIGEST, [table]):
                        self.proven += 1
                        assert rows[table] >= node.knows[table], (proof, table)

    @rule(number=NODES)
    def a_result_of_now_is_proven_once_a_position_came(self, number):
        """The rule is no better than no rule if nothing is ever proven."""
        node = self.nodes[number]
        if not node.listening:
            return
        node.asked = None
        self.ask(number)
        self.answer(number)
        snapshot = self.server.snapshot()
        proof = Proof("server", snapshot, DIGEST, b"life %d" % self.server.life)
        assert node.generations.proofs.holds(proof, DIGEST, TABLES)
        assert not node.generations.proofs.holds(proof, b"other definitions", TABLES)


TestProofs = ProofMachine.TestCase
TestProofs.settings = settings(max_examples=200, stateful_step_count=60)
