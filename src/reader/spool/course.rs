//! What a spool asks for and what its bytes are good for: a pure state machine.
//!
//! A *generation* is what one download brings from its first byte to its last. Bytes of the present
//! generation that readers may have seen are *kept*. A stream that begins anew is compared with what
//! is kept, block by block: as long as all is equal, both are one generation. The first difference
//! ends the old one, and the new one has the blocks that were equal. So what was served is always
//! the beginning of one generation, and no reader sees two.

use crate::fetch::{Ask, Head};

/// Streams in a row that brought nothing beyond what is kept already.
const MOST_FRUITLESS: u32 = 4;

/// How far a spool has come.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Bytes kept: whole blocks, and the last one.
    kept: u64,
    /// The length of the present generation. Without one, nobody reads it yet.
    size: Option<u64>,
    /// The stream under way, or the last one, which broke off.
    stream: Option<Stream>,
    /// The most that was kept of any generation.
    highest: u64,
    /// Streams that did not raise it.
    fruitless: u32,
    /// The stream is longer than the present generation.
    overrun: bool,
}

#[derive(Debug)]
struct Stream {
    head: Head,
    /// Where its next byte belongs.
    at: u64,
    /// Its rest was asked for and nothing came yet.
    asked: bool,
}

/// What an answer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reception {
    /// It goes on with the bytes that came before, also those of a block that is not whole yet.
    Continued,
    /// It begins at the first byte again, to be compared with what is kept.
    Compared,
    /// It begins a generation; nothing that was kept is of it.
    Begun,
    /// Nothing: it does not prove what it goes on with.
    Useless,
}

/// What becomes of a whole block of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is kept already.
    Known,
    /// It is the next to be kept.
    Kept,
    /// The same, but of a new generation, which has the blocks before it of the old one.
    Replaced,
}

/// What the end of a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A break.
    Early,
    /// The end of the present generation.
    Expected,
    /// The end of a generation whose length is told only now: it has the whole blocks before it.
    Told,
}

impl Course {
    /// Goes on with `kept` bytes from an earlier run, of the version that `head` names.
    pub(super) fn resumed(kept: u64, head: Head) -> Self {
        let named = head.etag.is_some() || head.last_modified.is_some();
        Course {
            kept,
            size: head.total,
            highest: kept,
            // Its length alone proves too little after who knows how long.
            stream: named.then_some(Stream {
                head,
                at: kept,
                asked: false,
            }),
            ..Course::default()
        }
    }

    /// Bytes kept.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Bytes of the stream that came.
    pub(super) fn at(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.at)
    }

    /// The length of the present generation, if it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// What the stream says it is.
    pub(super) fn head(&self) -> Option<&Head> {
        self.stream.as_ref().map(|stream| &stream.head)
    }

    /// The length of the stream's artifact, if it is known.
    fn total(&self) -> Option<u64> {
        self.head()?.total
    }

    /// What to ask for now.
    pub(super) fn ask(&mut self) -> Ask {
        match &mut self.stream {
            Some(stream) if stream.at > 0 && !stream.asked && stream.head.can_be_continued() => {
                stream.asked = true;
                Ask::Rest {
                    from: stream.at,
                    if_range: stream.head.strong_etag().map(str::to_owned),
                }
            }
            _ => Ask::Whole,
        }
    }

    /// An answer came.
    pub(super) fn answered(&mut self, head: &Head) -> Reception {
        if head.from > 0 {
            return match &self.stream {
                Some(stream) if stream.at == head.from && stream.head.is_continued_by(head) => {
                    Reception::Continued
                }
                _ => Reception::Useless,
            };
        }
        self.overrun = false;
        self.stream = Some(Stream {
            head: head.clone(),
            at: 0,
            asked: false,
        });
        let comparable = match (self.size, head.total) {
            // What nobody has seen is not worth a comparison.
            (None, _) => false,
            (Some(size), Some(total)) => size == total,
            (Some(_), None) => true,
        };
        if comparable {
            return Reception::Compared;
        }
        self.kept = 0;
        self.size = head.total;
        Reception::Begun
    }

    /// `bytes` more came.
    pub(super) fn received(&mut self, bytes: u64) {
        if let Some(stream) = &mut self.stream {
            stream.at += bytes;
            stream.asked = false;
            self.overrun = self.size.is_some_and(|size| stream.at > size);
        }
    }

    /// Whether a block that ends at `end` must not be served yet: by its length it is the last one,
    /// but only the end of the stream tells whether it is.
    pub(super) fn is_suspense(&self, end: u64) -> bool {
        self.total().is_none() && self.size == Some(end) && self.at() == end
    }

    /// Whether there is something kept to compare the block of `len` bytes at `start` with.
    pub(super) fn is_known(&self, start: u64, len: u64) -> bool {
        start < self.kept && self.fits(start + len)
    }

    fn fits(&self, end: u64) -> bool {
        !self.overrun && self.size.is_none_or(|size| end <= size)
    }

    /// The block of `len` bytes at `start` came; `equal` to what is known, where that is.
    pub(super) fn placed(&mut self, start: u64, len: u64, equal: bool) -> Fate {
        let fits = self.fits(start + len);
        if start < self.kept && fits && equal {
            return Fate::Known;
        }
        let fate = if start == self.kept && fits {
            Fate::Kept
        } else {
            self.size = self.total();
            self.overrun = false;
            Fate::Replaced
        };
        self.kept = start + len;
        if self.kept > self.highest {
            self.highest = self.kept;
            self.fruitless = 0;
        }
        fate
    }

    /// The body ended in order, `pending` bytes after its last whole block.
    pub(super) fn ended(&mut self, pending: u64) -> End {
        let Some(stream) = &mut self.stream else {
            return End::Early;
        };
        let at = stream.at;
        if *stream.head.total.get_or_insert(at) != at {
            return End::Early;
        }
        if self.size == Some(at) {
            return End::Expected;
        }
        self.size = Some(at);
        self.kept = at - pending;
        End::Told
    }

    /// The stream broke off, or its answer was useless; whether another try makes sense.
    pub(super) fn broken(&mut self) -> bool {
        self.fruitless += 1;
        self.fruitless <= MOST_FRUITLESS
    }

    /// There is another job, whose bytes may be others.
    pub(super) fn begin_anew(&mut self) {
        self.stream = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 4;

    /// What a server does with one request.
    #[derive(Debug, Clone)]
    struct Turn {
        /// Which version of the backup it has now.
        version: usize,
        ranges: bool,
        length: bool,
        tag: bool,
        /// It breaks off after so many bytes.
        cut: usize,
    }

    /// What readers may have seen of one generation.
    #[derive(Debug, Default)]
    struct Seen {
        size: Option<u64>,
        bytes: Vec<u8>,
    }

    /// The spool without its network and its disk.
    #[derive(Debug, Default)]
    struct Model {
        course: Course,
        seen: Vec<Seen>,
        pending: Vec<u8>,
    }

    impl Model {
        fn begin(&mut self, blocks_before: u64) {
            let before = self.seen.last().map_or(&[][..], |seen| &seen.bytes);
            self.seen.push(Seen {
                size: self.course.size(),
                bytes: before[..blocks_before as usize].to_vec(),
            });
        }

        fn place(&mut self) {
            self.place_before(0);
        }

        /// Places what is pending, which came before the last `after` bytes.
        fn place_before(&mut self, after: u64) {
            let block = std::mem::take(&mut self.pending);
            let len = block.len() as u64;
            let start = self.course.at() - after - len;
            let kept = &self.seen.last().unwrap().bytes;
            let equal = self.course.is_known(start, len)
                && kept[start as usize..(start + len) as usize] == block;
            match self.course.placed(start, len, equal) {
                Fate::Known => return,
                Fate::Kept => {}
                Fate::Replaced => self.begin(start),
            }
            self.seen.last_mut().unwrap().bytes.extend(block);
        }

        /// One request and what comes of it: whether the artifact is whole.
        fn turn(&mut self, turn: &Turn, versions: &[Vec<u8>]) -> bool {
            let content = &versions[turn.version];
            let tag = turn.tag.then(|| format!("\"{}\"", turn.version));
            let mut head = Head {
                from: 0,
                total: turn.length.then_some(content.len() as u64),
                etag: tag.clone(),
                last_modified: None,
            };
            if let Ask::Rest { from, if_range } = self.course.ask() {
                let same = if_range.is_none() || if_range == tag;
                if turn.ranges && same && (from as usize) < content.len() {
                    head.from = from;
                }
            }
            match self.course.answered(&head) {
                Reception::Useless => return false,
                Reception::Continued => {}
                Reception::Compared => self.pending.clear(),
                Reception::Begun => {
                    self.pending.clear();
                    self.begin(0);
                }
            }
            let body = &content[head.from as usize..];
            for byte in body.iter().take(turn.cut) {
                self.course.received(1);
                if self.pending.len() as u64 == BLOCK {
                    self.place_before(1);
                }
                self.pending.push(*byte);
                let at = self.course.at();
                let total = self.course.head().unwrap().total;
                let full = at.is_multiple_of(BLOCK) || total == Some(at);
                if full && !self.course.is_suspense(at) {
                    self.place();
                }
            }
            if turn.cut < body.len() {
                return false;
            }
            let pending = self.pending.len() as u64;
            match self.course.ended(pending) {
                End::Early => return false,
                End::Expected => {}
                End::Told => self.begin(self.course.at() - pending),
            }
            if pending > 0 {
                self.place();
            }
            true
        }
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        (0usize..3, flags, 0usize..60).prop_map(|(version, (ranges, length, tag), cut)| Turn {
            version,
            ranges,
            length,
            tag,
            cut,
        })
    }

    /// Three versions of one backup, alike in their beginnings, and of few lengths. A length alone
    /// is taken for a proof where a server names nothing else, so where it tells nothing else here
    /// the lengths differ.
    fn versions() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec((0usize..12, 0usize..50), 3).prop_map(|shapes| {
            let versions = (0..3).zip(shapes).map(|(number, (len, alike))| {
                let byte = |at: usize| match at < alike {
                    true => at as u8,
                    false => (number + 1) * 60 + at as u8,
                };
                (0..len * 3 + usize::from(number)).map(byte).collect()
            });
            versions.collect()
        })
    }

    proptest! {
        /// Whatever servers do, what was served is the beginning of one version, all of it only if
        /// that is where it ends, and what became whole is one version.
        #[test]
        fn no_two_generations_are_ever_mixed(
            turns in prop::collection::vec(turn(), 1..12), versions in versions(),
        ) {
            let mut model = Model::default();
            let mut whole = false;
            for turn in &turns {
                whole = model.turn(turn, &versions);
                if whole || !model.course.broken() {
                    break;
                }
            }
            for seen in &model.seen {
                let fits = |version: &&Vec<u8>| {
                    let all = seen.size == Some(seen.bytes.len() as u64);
                    version.starts_with(&seen.bytes) && (!all || **version == seen.bytes)
                };
                prop_assert!(versions.iter().any(|version| fits(&version)), "{:?}", model);
            }
            if whole {
                let last = model.seen.last().unwrap();
                prop_assert!(versions.contains(&last.bytes), "{:?}", model);
                prop_assert_eq!(last.size, Some(last.bytes.len() as u64));
                prop_assert_eq!(model.course.kept(), last.bytes.len() as u64);
            }
        }

        /// The same bytes again, however often they break off, are one generation for its readers.
        #[test]
        fn readers_of_a_stable_artifact_go_on(
            turns in prop::collection::vec(turn(), 1..12), len in 1usize..50,
        ) {
            let content: Vec<u8> = (0..len as u8).collect();
            let mut model = Model::default();
            for turn in turns {
                let turn = Turn { version: 0, length: true, ..turn };
                if model.turn(&turn, std::slice::from_ref(&content)) {
                    break;
                }
            }
            prop_assert_eq!(model.seen.len(), 1);
        }
    }

    fn head(from: u64, total: Option<u64>, etag: Option<&str>) -> Head {
        Head {
            from,
            total,
            etag: etag.map(str::to_owned),
            last_modified: None,
        }
    }

    #[test]
    fn the_rest_is_asked_for_once_and_only_where_it_can_be_proved() {
        let mut course = Course::default();
        assert_eq!(course.ask(), Ask::Whole);
        assert_eq!(
            course.answered(&head(0, Some(100), Some("\"x\""))),
            Reception::Begun
        );
        course.received(40);
        let rest = |from| Ask::Rest {
            from,
            if_range: Some("\"x\"".to_owned()),
        };
        assert_eq!(course.ask(), rest(40));
        assert_eq!(course.ask(), Ask::Whole, "once");
        assert_eq!(
            course.answered(&head(40, Some(100), Some("\"x\""))),
            Reception::Continued
        );
        course.received(1);
        assert_eq!(course.ask(), rest(41), "something came of it");
        assert_eq!(
            course.answered(&head(41, Some(100), Some("\"y\""))),
            Reception::Useless
        );
        course.begin_anew();
        assert_eq!(course.ask(), Ask::Whole);

        let mut unnamed = Course::default();
        unnamed.answered(&head(0, None, None));
        unnamed.received(40);
        assert_eq!(unnamed.ask(), Ask::Whole, "nothing could prove the rest");
    }

    #[test]
    fn what_is_left_of_an_earlier_run_goes_on_only_by_its_name() {
        let named = head(0, Some(100), Some("\"x\""));
        let mut course = Course::resumed(40, named.clone());
        assert!(matches!(course.ask(), Ask::Rest { from: 40, .. }));
        let mut course = Course::resumed(40, head(0, Some(100), None));
        assert_eq!(course.ask(), Ask::Whole);
        assert_eq!(course.answered(&named), Reception::Compared);
        assert_eq!(course.kept(), 40);
    }

    #[test]
    fn tries_that_bring_nothing_new_come_to_an_end() {
        let mut course = Course::default();
        for round in 1..20 {
            course.answered(&head(0, Some(100), None));
            course.received(round * 4);
            for block in 0..round {
                course.placed(block * 4, 4, true);
            }
            assert!(course.broken(), "each round brought a block more");
        }
        let tries = (0..).take_while(|_| course.broken()).count();
        assert!(tries < MOST_FRUITLESS as usize + 1);
    }
}
