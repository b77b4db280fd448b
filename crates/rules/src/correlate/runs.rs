//! Runs: neighbouring anchors at which a correlation holds. Each run is one firing, at its first anchor.

use std::collections::HashSet;

/// A maximal run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub first: i64,
    pub last: i64,
    pub id: u128,
}

/// What happened to firings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Opened(Run),
    /// It holds at newer anchors too.
    GoesOn(Run),
    /// It begins at another anchor than was thought.
    Moved(Run),
    /// It is a part of another.
    Merged {
        id: u128,
        into: u128,
    },
    /// It does not hold any more.
    Withdrawn {
        id: u128,
    },
}

/// A stretch of anchors that was judged anew.
pub(super) struct Judged<'a> {
    /// All anchors of the stretch in order; never empty.
    pub anchors: &'a [(i64, bool)],
    /// The neighbours of the stretch.
    pub before: Option<i64>,
    pub after: Option<i64>,
    pub span: i64,
}

/// Brings the runs up to date. `mint` names a new run by its first anchor; what it gives has to
/// differ for different salts.
pub(super) fn update(runs: &mut Vec<Run>, judged: &Judged<'_>, mint: &mut dyn FnMut(i64, u32) -> u128) -> Vec<Turn> {
    let (Some((start, _)), Some((end, _))) = (judged.anchors.first(), judged.anchors.last()) else {
        return Vec::new();
    };
    let from = runs.partition_point(|run| run.last < judged.before.unwrap_or(*start));
    let to = runs.partition_point(|run| run.first <= judged.after.unwrap_or(*end));
    let old: Vec<Run> = runs[from..to.max(from)].to_vec();

    // First and last anchors of the runs as they are now.
    let mut pieces: Vec<(i64, i64)> = Vec::new();
    for run in old.iter().filter(|run| run.first < *start) {
        let last = if run.last >= *start { judged.before.unwrap_or(run.first) } else { run.last };
        pieces.push((run.first, last));
    }
    let mut previous = judged.before;
    let join = |pieces: &mut Vec<(i64, i64)>, first: i64, last: i64, previous: Option<i64>| match pieces.last_mut() {
        Some(piece) if Some(piece.1) == previous && first - piece.1 <= judged.span => piece.1 = last,
        Some(_) | None => pieces.push((first, last)),
    };
    for (anchor, holds) in judged.anchors {
        if *holds {
            join(&mut pieces, *anchor, *anchor, previous);
        }
        previous = Some(*anchor);
    }
    for run in old.iter().filter(|run| run.last > *end) {
        let first = if run.first <= *end { judged.after.unwrap_or(run.last) } else { run.first };
        let previous = if Some(first) == judged.after { previous } else { None };
        join(&mut pieces, first, run.last, previous);
    }

    let mut turns = Vec::new();
    let mut claims: Vec<Option<Run>> = vec![None; pieces.len()];
    let mut at = 0;
    for run in &old {
        while pieces.get(at).is_some_and(|piece| piece.1 < run.first) {
            at += 1;
        }
        match pieces.get(at) {
            Some(piece) if piece.0 <= run.last => match claims[at] {
                None => claims[at] = Some(*run),
                Some(first) => turns.push(Turn::Merged { id: run.id, into: first.id }),
            },
            Some(_) | None => turns.push(Turn::Withdrawn { id: run.id }),
        }
    }
    let opens = claims.iter().any(Option::is_none);
    let mut names: HashSet<u128> = runs.iter().filter(|_| opens).map(|run| run.id).collect();
    let mut fresh: Vec<Run> = Vec::with_capacity(pieces.len());
    for ((first, last), claim) in pieces.into_iter().zip(claims) {
        let run = match claim {
            Some(claim) => {
                let run = Run { first, last, id: claim.id };
                if claim.first != first {
                    turns.push(Turn::Moved(run));
                } else if claim.last < last {
                    turns.push(Turn::GoesOn(run));
                }
                run
            }
            None => {
                // A run that began here may have moved on, and kept its name.
                let id = (0..).map(|salt| mint(first, salt)).find(|id| names.insert(*id)).unwrap_or_default();
                let run = Run { first, last, id };
                turns.push(Turn::Opened(run));
                run
            }
        };
        fresh.push(run);
    }
    runs.splice(from..to.max(from), fresh);
    turns
}

/// Whether it holds at an anchor.
pub(super) fn holds_at(runs: &[Run], anchor: i64) -> bool {
    let index = runs.partition_point(|run| run.last < anchor);
    runs.get(index).is_some_and(|run| run.first <= anchor)
}
