//! Which shards move: evenly spread, and only as many as must.

use super::WorkerId;

/// A shard and its living holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub shard: usize,
    pub worker: Option<WorkerId>,
}

/// What one worker is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    pub take: Vec<usize>,
    pub release: Vec<usize>,
}

/// Moves of `worker`, one of those that are `alive`. Each has its part of the shards, and of what is left
/// over those one more who have the most already: so that a newcomer takes no more than its part, and
/// nobody gives away what another has to give.
pub(crate) fn moves(shards: &[Held], alive: &[WorkerId], worker: WorkerId) -> Moves {
    let count = |of: WorkerId| shards.iter().filter(|held| held.worker == Some(of)).count();
    let mut order: Vec<(std::cmp::Reverse<usize>, WorkerId)> =
        alive.iter().map(|worker| (std::cmp::Reverse(count(*worker)), *worker)).collect();
    order.sort_unstable();
    let Some(rank) = order.iter().position(|(_, other)| *other == worker) else { return Moves::default() };
    let part = shards.len() / alive.len() + usize::from(rank < shards.len() % alive.len());
    let mine = || shards.iter().filter(|held| held.worker == Some(worker)).map(|held| held.shard);
    let have = mine().count();
    if have > part {
        return Moves { take: Vec::new(), release: mine().skip(part).collect() };
    }
    let free = shards.iter().filter(|held| held.worker.is_none()).map(|held| held.shard);
    Moves { take: free.take(part - have).collect(), release: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds in which each of the living holds in turn; the holders of the shards afterwards, and how
    /// many moved.
    fn rounds(shards: &mut [Held], alive: &[u128], rounds: usize) -> usize {
        let alive: Vec<WorkerId> = alive.iter().copied().map(WorkerId).collect();
        for held in shards.iter_mut().filter(|held| held.worker.is_some_and(|w| !alive.contains(&w))) {
            held.worker = None;
        }
        let mut taken = 0;
        for _ in 0..rounds {
            for worker in &alive {
                let moves = moves(shards, &alive, *worker);
                taken += moves.take.len();
                for held in shards.iter_mut() {
                    if moves.take.contains(&held.shard) {
                        assert_eq!(held.worker, None);
                        held.worker = Some(*worker);
                    } else if moves.release.contains(&held.shard) {
                        held.worker = None;
                    }
                }
            }
        }
        taken
    }

    #[test]
    fn shards_are_spread_evenly_and_few_of_them_move() {
        let mut shards: Vec<Held> = (0..8).map(|shard| Held { shard, worker: None }).collect();
        for (alive, must_move) in [
            (&[5][..], 8),
            (&[5, 1], 4),
            (&[5, 1], 0),
            (&[5, 1, 9], 2),
            (&[1, 9], 3),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 7),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0),
            (&[4], 7),
        ] {
            let taken = rounds(&mut shards, alive, 3);
            let parts: Vec<usize> = alive
                .iter()
                .map(|worker| shards.iter().filter(|held| held.worker == Some(WorkerId(*worker))).count())
                .collect();
            assert_eq!(parts.iter().sum::<usize>(), 8, "{alive:?}: {parts:?}");
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{alive:?}: {parts:?}");
            assert!(taken <= must_move, "{alive:?}: {taken} moved");
        }
    }

    #[test]
    fn who_is_not_alive_moves_nothing() {
        let shards = [Held { shard: 0, worker: None }];
        assert_eq!(moves(&shards, &[WorkerId(1)], WorkerId(2)), Moves::default());
        assert_eq!(moves(&shards, &[], WorkerId(2)), Moves::default());
    }
}
