"""Who is measured, in the order of the table's columns?"""

from __future__ import annotations

from tests.benchmarks.peers import Peer
from tests.benchmarks.peers.fsync_under_lock import FsyncUnderLock
from tests.benchmarks.peers.libraries import LIBRARIES
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.servers import SERVERS
from tests.benchmarks.peers.sqlite import SQLite

PEERS: tuple[Peer, ...] = (Ours(), SQLite(), FsyncUnderLock(), *LIBRARIES, *SERVERS)
