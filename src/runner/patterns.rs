//! Finds many values in a stream of bytes: an Aho-Corasick automaton in 17 to 21 bytes per byte of the values.
//!
//! Masking has to be linear in time and memory for every set of values, because users choose them. A general library keeps all matches of a
//! state, or a table per state, which is superlinear for values such as `aaaa…`. Masking needs two numbers per state: the length of the
//! longest value that ends here, and the length of the longest end of the stream that may begin a value.
//!
//! States are numbered level by level, so the children of a state are neighbours and are stored as one slice of labels. A failure link leads
//! to a lower number. The first states, which most bytes of most streams lead to, have a table of all their transitions.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

/// A state of the automaton. The first is the root: nothing of what was read begins a value.
pub(super) type State = u32;

const ROOT: State = 0;
/// One state in so many has a table, which so costs 4 bytes per state.
const STATES_PER_TABLE: usize = 256;
const MOST_TABLES: usize = 257;

/// An automaton that finds values.
#[derive(Default)]
pub(super) struct Patterns {
    /// The byte that leads to each state from its parent.
    labels: Zeroizing<Vec<u8>>,
    /// Where the children of each state begin; those of the next state begin where they end.
    children: Vec<State>,
    /// The state of the longest proper end of what leads to a state.
    failure: Vec<State>,
    /// How long the longest value is that ends in a state; 0 if none does.
    matched: Vec<u32>,
    /// How long the longest end of what leads to a state is that begins a longer value.
    open: Vec<u32>,
    /// All transitions of the first states.
    tables: Zeroizing<Vec<State>>,
}

impl Patterns {
    /// Finds these values, none of which is empty.
    pub(super) fn new(values: &BTreeSet<&str>) -> Self {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        let mut patterns = Self::default();
        patterns.add_states(&values);
        patterns.add_links();
        patterns.add_tables();
        patterns
    }

    /// Adds the states of sorted values, level by level. Every byte of every value is looked at once.
    fn add_states(&mut self, values: &[&[u8]]) {
        let mut level = vec![(0, values.len())];
        self.labels.push(0);
        self.matched.push(0);
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (mut from, to) in level {
                self.children.push(self.last() + 1);
                // A value that ends here comes before those that it begins.
                if values[from].len() == depth {
                    from += 1;
                }
                while from < to {
                    let label = values[from][depth];
                    let same = values[from..to].iter().take_while(|value| value[depth] == label).count();
                    self.labels.push(label);
                    let ends = values[from].len() == depth + 1;
                    self.matched.push(if ends { length(depth + 1) } else { 0 });
                    next.push((from, from + same));
                    from += same;
                }
            }
            level = next;
            depth += 1;
        }
        self.children.push(self.last() + 1);
    }

    /// Adds what each state takes over from the state that its failure link leads to. Along a value the links get longer by at most one a
    /// byte, so all of them together take as many steps as the values have bytes.
    fn add_links(&mut self) {
        let states = self.labels.len();
        self.failure = vec![ROOT; states];
        self.open = vec![0; states];
        let mut depths_end = self.children[0]; // where the level of the state ends
        let mut depth = 0;
        for state in 0..length(states) {
            if state == depths_end {
                depth += 1;
                depths_end = self.children[index(state)];
            }
            let failure = self.failure[index(state)];
            if state != ROOT {
                if self.matched[index(state)] == 0 {
                    self.matched[index(state)] = self.matched[index(failure)];
                }
                let (from, to) = self.children_of(state);
                self.open[index(state)] = if from < to { depth } else { self.open[index(failure)] };
                for child in from..to {
                    self.failure[child] = self.step(failure, self.labels[child]);
                }
            }
        }
    }

    fn add_tables(&mut self) {
        let tables = (self.labels.len() / STATES_PER_TABLE).clamp(1, MOST_TABLES);
        let mut rows = Zeroizing::new(vec![ROOT; tables * 256]);
        for state in 0..tables {
            if state > 0 {
                let failure = index(self.failure[state]);
                rows.copy_within(failure * 256..(failure + 1) * 256, state * 256);
            }
            let (from, to) = self.children_of(length(state));
            for child in from..to {
                rows[state * 256 + usize::from(self.labels[child])] = length(child);
            }
        }
        self.tables = rows;
    }

    /// The state after one more byte.
    #[inline]
    pub(super) fn next(&self, state: State, byte: u8) -> State {
        match self.tables.get(index(state) * 256 + usize::from(byte)) {
            Some(next) => *next,
            None => self.step(state, byte),
        }
    }

    fn step(&self, mut state: State, byte: u8) -> State {
        loop {
            if let Some(next) = self.tables.get(index(state) * 256 + usize::from(byte)) {
                return *next;
            }
            let (from, to) = self.children_of(state);
            match memchr::memchr(byte, &self.labels[from..to]) {
                Some(at) => return length(from + at),
                None if state == ROOT => return ROOT,
                None => state = self.failure[index(state)],
            }
        }
    }

    /// How long the longest value is that ends in a state, if one does.
    #[inline]
    pub(super) fn matched(&self, state: State) -> usize {
        index(self.matched[index(state)])
    }

    /// How many of the last bytes may be the beginning of a value.
    pub(super) fn open(&self, state: State) -> usize {
        index(self.open[index(state)])
    }

    fn children_of(&self, state: State) -> (usize, usize) {
        (index(self.children[index(state)]), index(self.children[index(state) + 1]))
    }

    fn last(&self) -> State {
        length(self.labels.len() - 1)
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A number of bytes of the values: there are far fewer than 4 GiB of them, because a process could not be given them.
fn length(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
