//! Numbers in order, for percentiles: adding, removing and looking up one of a hundred thousand moves
//! a few hundred.

/// Most numbers of a block.
const BLOCK_MAX: usize = 512;

/// Sorted; the blocks are sorted among each other and none is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranks {
    blocks: Vec<Vec<f64>>,
    len: usize,
}

impl Ranks {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * size_of::<f64>() + size_of::<Vec<f64>>()).sum()
    }

    /// The block in which a number is, or belongs.
    fn block(&self, number: f64) -> usize {
        let before = |block: &Vec<f64>| block.last().is_some_and(|last| last.total_cmp(&number).is_lt());
        self.blocks.partition_point(before)
    }

    pub fn add(&mut self, number: f64) {
        self.len += 1;
        let index = self.block(number).min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(index) else {
            self.blocks.push(vec![number]);
            return;
        };
        block.insert(block.partition_point(|other| other.total_cmp(&number).is_lt()), number);
        if block.len() > BLOCK_MAX {
            let upper = block.split_off(BLOCK_MAX / 2);
            self.blocks.insert(index + 1, upper);
        }
    }

    /// Removes one such number, if there is one.
    pub fn remove(&mut self, number: f64) {
        let index = self.block(number);
        let Some(block) = self.blocks.get_mut(index) else { return };
        let at = block.partition_point(|other| other.total_cmp(&number).is_lt());
        if block.get(at).is_some_and(|found| found.total_cmp(&number).is_eq()) {
            block.remove(at);
            self.len -= 1;
            if block.is_empty() {
                self.blocks.remove(index);
            }
        }
    }

    /// The number with so many before it.
    pub fn at(&self, mut rank: usize) -> Option<f64> {
        for block in &self.blocks {
            match block.get(rank) {
                Some(number) => return Some(*number),
                None => rank -= block.len(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_sorted_list() {
        let (mut ranks, mut list, mut state) = (Ranks::default(), Vec::new(), 1_u64);
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Grows, then shrinks; many numbers are equal.
            let number = ((state >> 33) % 3_000) as f64 - 1_500.0;
            let grows = (step < 10_000) == ((state >> 20) % 4 != 0);
            if grows {
                ranks.add(number);
                list.insert(list.partition_point(|other| *other < number), number);
            } else {
                ranks.remove(number);
                if let Ok(at) = list.binary_search_by(|other: &f64| other.total_cmp(&number)) {
                    list.remove(at);
                }
            }
            assert_eq!(ranks.len(), list.len());
            if step % 100 == 0 {
                assert!((0..=list.len()).all(|rank| ranks.at(rank) == list.get(rank).copied()), "step {step}");
            }
        }
        for number in list.clone() {
            ranks.remove(number);
        }
        assert_eq!((ranks.len(), ranks.bytes()), (0, 0));
    }
}
