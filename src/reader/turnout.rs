//! How many take part just now, so that each can be given its share. Pure: time is a parameter.
//!
//! Time passes in *terms* of equal length. Who took part in this term or in the one before counts;
//! who fell silent frees its share within two terms.

/// Counts the participants of the present term.
#[derive(Debug, Default)]
pub struct Turnout {
    term: u64,
    present: usize,
    before: usize,
}

/// When a participant was counted last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ballot(Option<u64>);

impl Turnout {
    /// The holder of `ballot` takes part in `term`; answers how many do, itself included.
    pub fn attend(&mut self, term: u64, ballot: &mut Ballot) -> usize {
        if term > self.term {
            self.before = if term == self.term + 1 {
                self.present
            } else {
                0
            };
            self.present = 0;
            self.term = term;
        }
        if ballot.0 != Some(self.term) {
            *ballot = Ballot(Some(self.term));
            self.present += 1;
        }
        self.present.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_took_part_lately_counts_once() {
        let mut turnout = Turnout::default();
        let [mut a, mut b] = [Ballot::default(); 2];
        assert_eq!(turnout.attend(0, &mut a), 1);
        assert_eq!(turnout.attend(0, &mut a), 1);
        assert_eq!(turnout.attend(0, &mut b), 2);
        // The others of the term before still count.
        assert_eq!(turnout.attend(1, &mut a), 2);
        assert_eq!(turnout.attend(2, &mut a), 1);
        assert_eq!(turnout.attend(9, &mut b), 1);
        // A clock read late changes nothing.
        assert_eq!(turnout.attend(8, &mut a), 2);
    }

    proptest! {
        #[test]
        fn the_turnout_is_that_of_the_better_of_two_terms(
            visits in prop::collection::vec((0usize..5, 0u64..2), 1..100),
        ) {
            let mut turnout = Turnout::default();
            let mut ballots = [Ballot::default(); 5];
            let mut seen = vec![std::collections::BTreeSet::new(); 300];
            let mut term = 1;
            for (who, later) in visits {
                term += later;
                seen[term as usize].insert(who);
                let expected = seen[term as usize].len().max(seen[term as usize - 1].len());
                prop_assert_eq!(turnout.attend(term, &mut ballots[who]), expected);
            }
        }
    }
}
