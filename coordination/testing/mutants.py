"""Which rules does the log's protocol live by, and does the laboratory notice when one of them is gone?

Every mutant takes one rule away from the kernel. ``python -m coordination.testing.mutants NAME`` runs the laboratory's
searches against it, in a process of its own, and prints which of them caught it and how::

    python -m coordination.testing.mutants                    the list
    python -m coordination.testing.mutants NAME               exit 0: caught, 1: survived, 2: its text is not there
    python -m coordination.testing.mutants none               the kernel as it is: must survive, or a search is wrong

A mutant that nothing can catch, because what it takes away is a second net or only speed, stands in ``SURVIVORS`` with
the reason. Where two nets lie one above the other, the mutant that takes both away is in the list as well.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from coordination.testing.mutation import Change, Mutant, Outdated, Search, install, judge

FILE, COMMIT, PAGE, RECOVERY, SEGMENTS, FRAMES, TAIL, TURNS = (
    f"coordination.log.{name}" for name in ("file", "commit", "page", "recovery", "segments", "frames", "tail", "turns")
)
FILES, ENV = "coordination.files", "coordination.env"


_PUBLISH = "    head = publish_segment(directory, header, found.payloads, env=env)\n"
_IN_PLACE = """\
    end, descriptor = found.end, env.open_existing(chain.last.path)
    env.sync(descriptor)
    head = Head(epoch=chain.epoch, segment=end.segment, offset=end.offset, seq=end.seq, sum=end.sum)
"""


def _mutant(name: str, rule: str, *changes: tuple[str, str, str]) -> Mutant:
    return Mutant(name=name, rule=rule, changes=tuple(Change(*change) for change in changes))


LINE = (
    _mutant(
        "sum-without-segment",
        "A checksum begins with the segment's number, so that a line does not count in another file.",
        (FRAMES, "_SEED.pack(segment, previous_sum)", "_SEED.pack(0, previous_sum)"),
        (FRAMES, "zlib.crc32(_SEGMENT.pack(segment))", "zlib.crc32(_SEGMENT.pack(0))"),
    ),
    _mutant(
        "sum-without-previous",
        "A checksum goes on from the line before, so that no line can be dropped, doubled or moved.",
        (FRAMES, "_SEED.pack(segment, previous_sum)", "_SEED.pack(segment, 0)"),
        (FRAMES, 'crc(checksum.to_bytes(4, "little"), seed)', "crc(bytes(4), seed)"),
    ),
    _mutant(
        "sum-not-compared",
        "A line counts only by its checksum.",
        (FRAMES, """if data[body : end + 1] != b',"sum":"%08x"}\\n' % found:""", "if body <= begin:"),
    ),
    _mutant(
        "line-without-watermark",
        "A line carries how far the disk was known to be when it was written.",
        (FILE, "durable=reading.durable, segment=head.segment", "durable=0, segment=head.segment"),
    ),
    _mutant(
        "watermark-too-high",
        "The watermark on a line is what was durable, not what was written.",
        (FILE, "durable=reading.durable, segment=head.segment", "durable=head.seq, segment=head.segment"),
    ),
    _mutant(
        "header-without-watermark",
        "The header of a segment that recovery made says that its lines are durable.",
        (RECOVERY, "durable=found.end.seq,", "durable=found.proven.seq,"),
    ),
)

PUBLISHING = (
    _mutant(
        "publish-without-sync",
        "What is renamed into place was synced before.",
        (FILES, "        env.sync(descriptor)\n", ""),
    ),
    _mutant(
        "publish-in-place",
        "A segment appears by a rename, whole or not at all.",
        (FILES, 'path.with_name(f".{path.name}.{env.pid()}.{env.random_hex(6)}.tmp")', "path"),
    ),
    _mutant(
        "publish-without-directory-sync",
        "A new name is durable only after its directory was synced.",
        (FILES, "    env.sync_directory(path.parent)\n\n\ndef publish_json", "\n\ndef publish_json"),
    ),
    _mutant(
        "directory-synced-before-rename",
        "The directory is synced after the rename.",
        (
            FILES,
            "        env.rename(temporary",
            "        env.sync_directory(path.parent)\n        env.rename(temporary",
        ),
        (FILES, "    env.sync_directory(path.parent)\n\n\ndef publish_json", "\n\ndef publish_json"),
    ),
    _mutant(
        "publish-after-short-write",
        "What the system did not take at once is written in a second piece.",
        (FILES, "data, offset = data[taken:], offset + taken", 'data, offset = b"", offset + taken'),
    ),
    _mutant(
        "roll-without-sync",
        "A segment is synced before the next one exists.",
        (FILE, 'if self._commit.sync_all(page, head.epoch) == "refused":', "if page is None:"),
    ),
    _mutant(
        "roll-without-looking",
        "A roll goes on only when all before it is durable, not when somebody merely had the sync turn.",
        (
            FILE,
            'if self._commit.sync_all(page, head.epoch) == "refused":',
            "if not self._commit.sync_all(page, head.epoch):",
        ),
    ),
    _mutant(
        "create-without-turn",
        "Only who has the append turn makes the first segment.",
        (FILE, "        with turns:\n            _create", "        if True:\n            _create"),
    ),
    _mutant(
        "page-before-segments",
        "A page is made only after the names of the segments are on the disk.",
        (FILE, "                self._env.sync_directory(self._directory)\n", ""),
    ),
    _mutant(
        "directory-of-another-not-synced",
        "A directory that was there is synced all the same: who made it may not have come to it.",
        (FILES, "    env.sync_directory(path.parent)  # also", "    # also"),
    ),
)

ACKNOWLEDGING = (
    _mutant(
        "acknowledge-without-waiting",
        "An append returns after its batch is durable.",
        (FILE, "        self._become_durable(page, head)\n        return head.seq", "        return head.seq"),
    ),
    _mutant(
        "acknowledge-one-early",
        "The watermark must cover our own batch.",
        (PAGE, "if self._words[_DURABLE] < seq:", "if self._words[_DURABLE] < seq - 1:"),
    ),
    _mutant(
        "acknowledge-in-any-epoch",
        "A number means our batch only in the epoch in which we wrote it.",
        (PAGE, "* _SLOT_WORDS] == epoch)", "* _SLOT_WORDS] <= 1 << 62)"),
    ),
    _mutant(
        "taken-over-by-any-recovery",
        "A recovery makes a batch durable only if it found and copied it.",
        (FILE, "if newer[0].header.durable < mine.seq:", "if newer[0].header.durable < 0:"),
    ),
    _mutant(
        "taken-over-by-the-newest",
        "Only the first recovery after our append can have taken our batch over: later ones may copy another's.",
        (FILE, "if newer[0].header.durable < mine.seq:", "if newer[-1].header.durable < mine.seq:"),
    ),
    _mutant(
        "taken-over-in-our-epoch",
        "Segments of our own epoch say nothing about what a recovery took over.",
        (FILE, "if segment.header.epoch > mine.epoch]", "if segment.header.epoch >= mine.epoch]"),
    ),
    _mutant(
        "no-sync",
        "What is acknowledged was synced.",
        (COMMIT, "self._env.sync_data(self._tail.descriptor(head.segment))", "self._tail.descriptor(head.segment)"),
    ),
    _mutant(
        "head-read-after-sync",
        "A sync covers what was written before it began, not what was written while it ran.",
        (
            COMMIT,
            "        page.reach(head.seq)\n",
            "        after = page.read()\n        page.reach(head.seq if after is None else after.head.seq)\n",
        ),
    ),
    _mutant(
        "durable-before-sync",
        "The watermark is stored after the sync.",
        (
            COMMIT,
            '        page.mark("syncing")\n        try:',
            '        page.mark("syncing")\n        page.reach(head.seq)\n        try:',
        ),
    ),
    _mutant(
        "durable-never-stored",
        "Who is woken finds the watermark stored.",
        (COMMIT, "        page.reach(head.seq)\n", ""),
    ),
    _mutant(
        "tail-kept-for-ever",
        "A descriptor is opened anew when the head is in another segment.",
        (TAIL, "if self._open is not None and (self._open[0] != segment", "if self._open is not None and (segment < 0"),
        (TAIL, "or self._names.file_id_at(self._name) != self._open[2]", "or segment < 0"),
    ),
    _mutant(
        "tail-by-number-only",
        "A descriptor is opened anew when another file has the segment's name.",
        (TAIL, "or self._names.file_id_at(self._name) != self._open[2]", "or segment < 0"),
    ),
    _mutant(
        "short-write-ignored",
        "A write that took only a part is an error.",
        (FILE, "if taken != len(line):", "if taken < 0:"),
    ),
    _mutant(
        "settle-without-sync",
        "After settling, what was only written is durable.",
        (
            FILE,
            "            self._become_durable(page, reading.head)\n        except Conflict",
            "            pass\n        except Conflict",
        ),
    ),
    _mutant(
        "refused-when-unknown",
        "After a failed write the answer is 'unknown', because the batch may come back.",
        (
            FILE,
            "            except OSError as error:\n                raise _unknown(self._directory, error) from error",
            "            except OSError as error:\n                raise Refused(str(error)) from error",
        ),
    ),
    _mutant(
        "refused-when-recovery-failed",
        "Who waits for a batch that is written is told 'unknown' when the recovery fails.",
        (
            FILE,
            "        except Refused as error:\n            raise _unknown(self._directory, error) from error",
            "        except Refused:\n            raise",
        ),
    ),
    _mutant(
        "append-in-any-epoch",
        "What was decided in another epoch is decided again.",
        (FILE, "if head.epoch != self._epoch or head.seq != after:", "if head.seq != after:"),
    ),
    _mutant(
        "append-at-any-head",
        "What was decided after another batch is decided again.",
        (FILE, "if head.epoch != self._epoch or head.seq != after:", "if head.epoch != self._epoch:"),
    ),
    _mutant(
        "second-payload-not-checked",
        "What is decided again is checked like the first payload.",
        (FILE, "        payload = again()\n        frames.check_payload(payload)\n", "        payload = again()\n"),
    ),
    _mutant(
        "epoch-read-before-watermark",
        "The epoch is looked at after the watermark, or an old epoch and a new watermark are seen together.",
        (PAGE, "        if self._words[_DURABLE] < seq:\n            return False\n", ""),
        (PAGE, "* _SLOT_WORDS] == epoch)", "* _SLOT_WORDS] == epoch and self._words[_DURABLE] >= seq)"),
    ),
    _mutant(
        "held-turn-is-a-refusal",
        "Who waits for a stopped process's sync is told 'unknown', because his line is written.",
        (FILE, "        except LockHeld as error:  # our", "        except ZeroDivisionError as error:  # our"),
    ),
    _mutant(
        "refused-when-sync-failed",
        "After a failed sync the answer is 'unknown', because the batch may come back.",
        (
            FILE,
            "            raise _unknown(self._directory, error) from error\n\n    def _look_after",
            "            raise Refused(str(error)) from error\n\n    def _look_after",
        ),
    ),
)

MARKS = (
    _mutant(
        "no-dirty-mark",
        "A mark stands while a line is written.",
        (FILE, '            page.mark("dirty")\n', ""),
    ),
    _mutant(
        "dirty-believed",
        "A page with the dirty mark is not believed.",
        (
            FILE,
            "reading.this_boot and not reading.dirty and not reading.poisoned",
            "reading.this_boot and not reading.poisoned",
        ),
    ),
    _mutant(
        "tail-not-compared",
        "A page is believed only if the segment ends where it says.",
        (FILE, "left_in_order and self._tail.follows(reading.head)", "left_in_order"),
    ),
    _mutant(
        "neither-dirty-nor-compared",
        "Either the mark or the segment's end tells that a line was begun.",
        (
            FILE,
            "reading.this_boot and not reading.dirty and not reading.poisoned",
            "reading.this_boot and not reading.poisoned",
        ),
        (FILE, "left_in_order and self._tail.follows(reading.head)", "left_in_order"),
    ),
    _mutant(
        "no-syncing-mark",
        "A mark stands from before a sync until after the word about it.",
        (COMMIT, '        page.mark("syncing")\n', ""),
    ),
    _mutant(
        "syncing-not-noticed",
        "Who finds the syncing mark in his turn takes it for a sync that failed.",
        (COMMIT, "        if reading.syncing:\n", "        if reading.syncing and reading.poisoned:\n"),
    ),
    _mutant(
        "page-of-any-boot",
        "The page dies with the boot.",
        (PAGE, "this_boot=self._boot != 0 and words[1] == self._boot", "this_boot=True"),
    ),
    _mutant(
        "page-without-boot",
        "Where the system does not name its boots no page is believed.",
        (PAGE, "this_boot=self._boot != 0 and words[1]", "this_boot=words[1]"),
        (RECOVERY, "    if not page.dies_with_boot:", "    if page is None:"),
    ),
    _mutant(
        "page-not-verified",
        "A head counts only by its checksum.",
        (PAGE, "or check != zlib.crc32(", "or check < 0 * zlib.crc32("),
    ),
    _mutant(
        "generation-before-slot",
        "The new slot is whole before the page says that it is the one that counts.",
        (
            PAGE,
            "        slot = (head.epoch,",
            "        self._env.store(self._words, _GENERATION, generation)\n        slot = (head.epoch,",
        ),
        (PAGE, "or check != zlib.crc32(", "or check < 0 * zlib.crc32("),
    ),
    _mutant(
        "marks-cleared-before-head",
        "Recovery takes the marks back when the page says where the new segment is, and not before.",
        (PAGE, "        self.advance(head)\n        self.reach(head.seq)\n        for", "        for"),
        (
            PAGE,
            "            self._store(mark, 0)\n",
            "            self._store(mark, 0)\n        self.advance(head)\n        self.reach(head.seq)\n",
        ),
    ),
    _mutant(
        "newer-segment-not-seen",
        "A page is believed only if no segment is newer than the one it names.",
        (TAIL, "if self._names.file_id_at(self._name_after) is not None:", "if head.seq < 0:"),
    ),
    _mutant(
        "watermark-above-head-believed",
        "A page that calls more durable than it says was written is broken.",
        (PAGE, "            or durable > seq\n", ""),
    ),
)

POISON = (
    _mutant(
        "no-poison",
        "A sync that failed poisons the page.",
        (COMMIT, '        except OSError:\n            page.mark("poison")\n', "        except OSError:\n"),
    ),
    _mutant(
        "sync-retried",
        "A file whose sync failed is never synced again.",
        (
            COMMIT,
            '        except OSError:\n            page.mark("poison")\n',
            '        except OSError:\n            page.clear("syncing")\n',
        ),
    ),
    _mutant(
        "poison-not-asked-in-turn",
        "Poison is asked for again after the sync turn came.",
        (COMMIT, "reading is None or reading.poisoned or", "reading is None or"),
    ),
    _mutant(
        "neither-poison-nor-syncing",
        "Either of the two marks keeps the next one from syncing that file again.",
        (COMMIT, "reading is None or reading.poisoned or", "reading is None or"),
        (COMMIT, "        if reading.syncing:\n", "        if reading.syncing and reading.head.seq < 0:\n"),
    ),
    _mutant(
        "append-to-poisoned",
        "Nothing is appended to a poisoned log before a recovery.",
        (
            FILE,
            "reading.this_boot and not reading.dirty and not reading.poisoned",
            "reading.this_boot and not reading.dirty",
        ),
    ),
    _mutant(
        "wait-in-poison",
        "Who waits and is refused a sync recovers.",
        (FILE, "                self._recover_first()\n                if self", "                if self"),
    ),
    _mutant(
        "poison-stays",
        "Recovery clears poison.",
        (PAGE, 'for mark in ("poison", "syncing", "dirty"):', 'for mark in ("syncing", "dirty"):'),
    ),
    _mutant(
        "refusal-not-heard",
        "A sync that was refused is not taken for one that is done.",
        (
            COMMIT,
            'not reading.this_boot:\n                return "refused"',
            'not reading.this_boot:\n                return "done"',
        ),
    ),
)

RECOVERING = (
    _mutant(
        "recovery-without-sync-turn",
        "Recovery keeps syncs out, or one that began before it would speak about the new segment.",
        (FILE, "            with self._commit.turns:\n", "            if page is not None:\n"),
    ),
    _mutant(
        "recovery-without-append-turn",
        "Who recovers because he waits takes the append turn for it.",
        (
            FILE,
            "            with self._turns:\n                self._settled()",
            "            if self._turns:\n                self._settled()",
        ),
    ),
    _mutant(
        "append-without-turn",
        "Only who has the append turn compares and writes.",
        (
            FILE,
            "        with self._turns:\n            page, reading = self._settled()\n            head =",
            "        if self._turns:\n            page, reading = self._settled()\n            head =",
        ),
    ),
    _mutant(
        "sync-without-turn",
        "One sync at a time, or an older one would take the watermark back.",
        (COMMIT, '            return "busy"\n', '            return "done" if self._sync(page, epoch) else "busy"\n'),
    ),
    _mutant(
        "recovery-trusts-poisoned-page",
        "After a failed sync the page proves nothing.",
        (RECOVERY, "and reading.this_boot and not reading.poisoned else 0", "and reading.this_boot else 0"),
    ),
    _mutant(
        "recovery-trusts-any-boot",
        "After a reboot only the lines prove something.",
        (RECOVERY, "reading is not None and reading.this_boot and not", "reading is not None and not"),
    ),
    _mutant(
        "recovery-trusts-the-cache",
        "What is not proven to be on the disk is written again into a new file.",
        (RECOVERY, "    seen, end = end, proven\n", "    seen = proven = end\n"),
    ),
    _mutant(
        "recovery-forgets-the-unproven",
        "What was written and not proven is kept: somebody may be waiting for it.",
        (
            RECOVERY,
            "publish_segment(directory, header, found.payloads, env=env)",
            "publish_segment(directory, header, (), env=env)",
        ),
        (RECOVERY, "durable=found.end.seq,", "durable=found.proven.seq,"),
    ),
    _mutant(
        "recovery-in-the-same-epoch",
        "Every recovery begins a new epoch.",
        (RECOVERY, "epoch=chain.epoch + 1,", "epoch=chain.epoch,"),
    ),
    _mutant(
        "recovery-goes-on-in-place",
        "Recovery never goes on in the old file, whose sync may have failed.",
        (
            RECOVERY,
            _PUBLISH,
            _IN_PLACE,
        ),
    ),
    _mutant(
        "recovery-cuts",
        "Recovery cuts and edits nothing.",
        (
            RECOVERY,
            _PUBLISH,
            "    env.resize(env.open_existing(chain.last.path), found.end.offset)\n" + _PUBLISH,
        ),
    ),
    _mutant(
        "recovery-without-mark",
        "Who recovers marks the page first, so that after a kill the next one recovers again.",
        (RECOVERY, '    page.mark("dirty")  # killed', "    # killed"),
    ),
    _mutant(
        "watermark-not-checked",
        "A log that ends before a watermark is damaged and not merely torn.",
        (RECOVERY, "    if end.seq < max(watermark, promised):", "    if end.seq < 0:"),
    ),
    _mutant(
        "page-is-no-witness",
        "The page's watermark counts as a witness even after a reboot.",
        (
            RECOVERY,
            "_check_tail(chain, end, max(claimed, end.durable), env)",
            "_check_tail(chain, end, end.durable, env)",
        ),
    ),
    _mutant(
        "promises-behind-not-heard",
        "What stands behind a bad line may say that the line was durable.",
        (RECOVERY, "promised = frames.promised(segments.remainder(chain, end, env=env))", "promised = 0"),
    ),
    _mutant(
        "recovery-reads-only-the-newest",
        "Recovery verifies every segment.",
        (RECOVERY, "segments.scan(chain, chain.segments[0].start, env=env)", "segments.scan(chain, newest, env=env)"),
    ),
    _mutant(
        "unconfirmed-name-trusted",
        "A segment whose name may not be on the disk is left behind.",
        (RECOVERY, "    chain = _known(chain, reading, env)\n", ""),
    ),
    _mutant(
        "number-used-again",
        "The number of a segment that was left behind is not used again.",
        (RECOVERY, "segment=number,", "segment=chain.last.header.segment + 1,"),
    ),
    _mutant(
        "written-segment-left-behind",
        "A segment that was written to is not left behind, whatever an old page says.",
        (RECOVERY, "if position.seq > newest.header.durable:", "if position.seq < 0:"),
    ),
    _mutant(
        "recovery-copies-what-it-saw-first",
        "What a recovery copies and calls durable is what it read last.",
        (
            RECOVERY,
            "        payloads += [payload for _, payload in batches]\n        end = position\n",
            "        payloads += [payload for _, payload in batches]\n    end = seen\n",
        ),
    ),
)

READING = (
    _mutant(
        "missing-segment-passed-over",
        "A segment that is missing between others is damage.",
        (SEGMENTS, "    if min(numbers) < previous.segment:", "    if previous.segment < 0:"),
    ),
    _mutant(
        "vanished-segment-passed-over",
        "The newest segment that was seen must still be there.",
        (
            SEGMENTS,
            "if known is not None and known.last.header.segment not in numbers:",
            "if known is not None and not numbers:",
        ),
    ),
    _mutant(
        "header-not-checked",
        "A header fits its file's name and itself.",
        (SEGMENTS, "    if header.segment != number or not goes_on or header", "    if number < 0 and header"),
    ),
    _mutant(
        "headers-not-compared",
        "A header follows the header before it: same log, next epoch, not behind its beginning.",
        (SEGMENTS, "    if not follows:", "    if not follows and header.segment < 0:"),
    ),
    _mutant(
        "end-not-compared",
        "An older segment reaches the batch that its successor goes on from.",
        (SEGMENTS, "    if position.seq != end.last_seq:", "    if position.seq < 0:"),
        (
            SEGMENTS,
            "    if frames.written(position.sum) != end.sum:",
            "    if position.seq == end.last_seq and frames.written(position.sum) != end.sum:",
        ),
    ),
    _mutant(
        "end-sum-not-compared",
        "An older segment ends with the checksum that its successor goes on from.",
        (SEGMENTS, "    if frames.written(position.sum) != end.sum:", "    if position.seq < 0:"),
    ),
    _mutant(
        "void-lines-read",
        "What follows the end that a newer segment gives is void.",
        (
            SEGMENTS,
            "until = last if reaches is None else min(reaches.last_seq, reaches.last_seq if last is None else last)",
            "until = last",
        ),
    ),
    _mutant(
        "short-log-read",
        "A reader who does not reach the watermark says that the log is damaged.",
        (FILE, "    if end.seq < watermark:", "    if end.seq < 0:"),
    ),
    _mutant(
        "base-passed-over",
        "Who asks for batches that were taken away is refused.",
        (FILE, "            if after < self._chain.base:", "            if self._chain.base < 0:"),
    ),
    _mutant(
        "reading-beyond-the-watermark",
        "A durable reading stops at the watermark.",
        (FILE, 'last = proven if upto == "durable" else None', "last = None"),
    ),
    _mutant(
        "head-called-durable",
        "What is written is not yet durable.",
        (FILE, "            return vouched\n", "            return reading.head.seq\n"),
    ),
    _mutant(
        "unproven-called-durable",
        "Without a page only the watermarks on the lines prove something.",
        (FILE, "return max(end.durable, vouched)", "return end.seq"),
    ),
    _mutant(
        "page-found-once",
        "A page that lost its name is not looked at any more.",
        (FILE, "if self._pages and self._pages[-1].current(names):", "if self._pages:"),
    ),
    _mutant(
        "page-not-asked-again-in-turn",
        "The page is asked again in the sync turn whether it still has its name.",
        (COMMIT, "reading = page.read() if page.current(self.turns.names) else None", "reading = page.read()"),
    ),
    _mutant(
        "old-page-kept",
        "Who waits goes on with the page that has the name after a recovery.",
        (FILE, "                page = self._pages[-1]\n", ""),
    ),
    _mutant(
        "names-never-looked-at-again",
        "What the names mean is asked again at the beginning of each turn.",
        (TURNS, "            self.names.look()\n", "            self.names.stamp or self.names.look()\n"),
    ),
)

LOCKS = (
    _mutant(
        "connection-crosses-a-fork",
        "A connection made before a fork is refused: both would hold one lock.",
        (FILE, "if self._env.pid() != self._pid:", "if self._pid < 0:"),
    ),
    _mutant(
        "lock-inherited",
        "Descriptors of locks do not cross an exec.",
        (ENV, "_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW", "_SAFE = os.O_NOFOLLOW"),
    ),
    _mutant(
        "lock-behind-a-link",
        "A symbolic link in a file's place is refused.",
        (ENV, "_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW", "_SAFE = os.O_CLOEXEC"),
    ),
    _mutant(
        "lock-of-a-removed-file",
        "A lock counts only while its file still has the name.",
        (TURNS, "if self.names.file_id_at(self._name) == self._file:", "if self._file:"),
    ),
    _mutant(
        "running-holder-killed",
        "A holder that runs is waited for.",
        (TURNS, "if pid is None or not self._env.process_stopped(pid):", "if pid is None:"),
    ),
    _mutant(
        "stopped-holder-waited-for",
        "A holder that was stopped is found out within a moment.",
        (TURNS, "            if now - looked > _LOOK_SECONDS:", "            if now < looked:"),
    ),
    _mutant(
        "stranger-killed",
        "Only who said that it is one of ours is killed.",
        (TURNS, "if who is None or not self._env.has_open(pid, self._path.with_name(OURS)):", "if who is None:"),
    ),
    _mutant(
        "number-given-again-killed",
        "Who is killed is asked again who it is, once a descriptor means it and nobody else.",
        (TURNS, "if identity(who.pid, env=self._env) == who:", "if who:"),
    ),
    _mutant(
        "bell-not-rung",
        "Whoever ends a turn wakes those who wait.",
        (TURNS, "            bell.ring(1)\n", "            bell.heard()\n"),
    ),
)

SPEED = (
    _mutant(
        "bell-heard-too-late",
        "The bells are asked before trying, or their ringing could be slept through.",
        (FILE, "page.sleep_until_round(mine.seq, heard)", "page.sleep_until_round(mine.seq, page.heard())"),
    ),
    _mutant(
        "sync-in-any-epoch",
        "Who waits syncs only in the epoch of his batch.",
        (COMMIT, "or reading.head.epoch != epoch or", "or"),
    ),
    _mutant(
        "sync-in-any-boot",
        "Who waits syncs only by a page of this boot.",
        (COMMIT, " or not reading.this_boot:", ":"),
    ),
    _mutant(
        "rounds-not-rung",
        "Whoever ends a sync wakes those whom it covered.",
        (COMMIT, "            page.ring_round(which)  # also", "            # also"),
    ),
)

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant
    for group in (LINE, PUBLISHING, ACKNOWLEDGING, MARKS, POISON, RECOVERING, READING, LOCKS, SPEED)
    for mutant in group
}

SURVIVORS: Mapping[str, str] = {
    "page-before-segments": "A page alone that vouches for nothing is no log at all, so the order only saves a making.",
    "lock-inherited": "Python opens every descriptor so that no exec inherits it (PEP 446); the flag only says so.",
    "bell-heard-too-late": "It costs a moment and no promise: a ringing that was slept through ends a bounded sleep.",
}

# ---- what is run against them ----------------------------------------------------------------------------------------

NONE = "none"
_SECONDS_MAX = 30
_TESTS = Path(__file__).parents[2] / "tests"
_KERNEL_TESTS = (
    "unit/test_files.py",
    "unit/test_env.py",
    "unit/test_frames.py",
    "unit/test_segments.py",
    "unit/test_turns.py",
    "unit/test_commit.py",
    "unit/test_file_log.py",
    "conformance/test_logs.py",
)


def schedules(number: int) -> Search:
    """Simulated histories at random, until the first one in which a promise is broken."""

    def look(seed: int) -> str | None:
        from coordination.testing.simulation import search

        report = search(seed, number, violations_max=1)
        return f"schedule {report.schedules}: {report.violations[0]}" if report.violations else None

    return look


class Endless(Exception):
    """A mutant came to no end."""


def reading(seed: int) -> str | None:
    """Whether the segments of a log that rolled and recovered say the same to the independent parser."""
    from coordination.log.file import FileLog, create
    from coordination.testing.history import NotALog, raw_batches

    with tempfile.TemporaryDirectory() as place, _ending():
        directory = Path(place)
        create(directory)
        log = FileLog(directory, segment_bytes=300)
        for number in range(10):
            if number == 5:
                (directory / "page").unlink()
            payload = b'{"seed":%d,"n":%d}' % (seed, number)
            log.append(payload, after=0, again=functools.partial(bytes, payload))
        try:
            raw = raw_batches(directory)
        except NotALog as error:
            return str(error)
        batches = list(log.read(0, upto="head"))
        log.close()
    return None if raw == batches else f"the log reads {batches}, its bytes say {raw}"


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Raise Endless if it takes hundreds of times what it should."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Endless(f"no end after {_SECONDS_MAX} seconds (signal {number}, in {frame})")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_SECONDS_MAX)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def intruders(cases: int | None) -> Search:
    """Others come and go between two gestures of one process; None: at every one of them."""

    def look(seed: int) -> str | None:
        from coordination.testing.intrusions import chosen, search, walk

        report = search(walk() if cases is None else chosen(seed, cases), violations_max=1)
        return f"case {report.cases}: {report.violations[0]}" if report.violations else None

    return look


def kernel_tests(seed: int) -> str | None:
    """The kernel's own tests, where there is a checkout."""
    import pytest

    paths = [str(_TESTS / name) for name in _KERNEL_TESTS if (_TESTS / name).exists()]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly", f"--seed={seed}"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        failed = bool(paths) and pytest.main([*options, *paths]) != pytest.ExitCode.OK
    told = [line for line in said.getvalue().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (told or [said.getvalue()[-2000:]])[0] if failed else None


QUICK: Mapping[str, Search] = {
    "an independent reading": reading,
    "intruders": intruders(400),
    "the simulation": schedules(2000),
}
ALL: Mapping[str, Search] = {
    "an independent reading": reading,
    "intruders": intruders(600),
    "the simulation": schedules(150),
    "the kernel's tests": kernel_tests,
    "intruders everywhere": intruders(None),
    "the long simulation": schedules(3000),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """List the mutants, or try one; see above."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.mutants", description=__doc__)
    parser.add_argument("name", nargs="?", help="which mutant; none: the kernel as it is")
    parser.add_argument("--seed", type=int, default=0, help="where the searches begin")
    parser.add_argument("--quick", action="store_true", help="only what finds most of them in a moment")
    asked = parser.parse_args(arguments)
    if asked.name is None:
        sys.stdout.writelines(f"{mutant.name:32} {mutant.rule}\n" for mutant in MUTANTS.values())
        return 0
    try:
        if asked.name != NONE:
            install(MUTANTS[asked.name])
    except (KeyError, Outdated) as error:
        sys.stderr.write(f"{asked.name}: {error}\n")
        return 2
    verdict = judge(QUICK if asked.quick else ALL, asked.seed)
    said = "survived" if verdict.caught_by is None else f"caught by {verdict.caught_by}: {verdict.how}"
    sys.stdout.write(f"{asked.name}: {said} ({verdict.seconds:.1f} s)\n")
    return 1 if verdict.caught_by is None else 0


if __name__ == "__main__":
    sys.exit(main())
