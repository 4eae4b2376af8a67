//! Which operation comes next: pure, and the same for the same seed.
//!
//! A [`Generator`] belongs to one client (or, in an open loop, to one source of arrivals). It draws a kind from the
//! recipe's mix, a shard by weight, and a slot by the recipe's distributions:
//!
//! - where directories are alike, the key distribution is over all slots of the shard;
//! - where they are not, a directory is drawn first, and a slot among those it had from the beginning;
//! - sequential: all clients together walk over the slots, one directory after the other where puts are batched.
//!
//! What it draws from is the [`Dataset`]'s table of slots; it knows nothing of the engine or of time.

use super::dataset::Dataset;
use super::draw::{DirectoryDistribution, KeyDistribution, KeyDraw, Ranks, below, mix64};
use super::op::{Op, OpKind};
use super::workload::Recipe;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

/// Which of several clients with the same recipe this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Tells it from every other client of the phase.
    pub(crate) stream: u32,
    /// Its place among those that walk over the same slots.
    pub(crate) number: u32,
    /// How many those are.
    pub(crate) of: u32,
}

/// One shard that a client goes to.
struct Reach {
    shard: u16,
    /// The upper end of its range of a 32-bit draw.
    end: u32,
    draw: KeyDraw,
    /// Where directories are not alike: ranks of the shard's.
    directories: Option<Ranks>,
    /// The next place of a sequential walk.
    place: u64,
}

/// The operations of one client.
pub(crate) struct Generator {
    rng: Xoshiro256PlusPlus,
    recipe: Arc<Recipe>,
    dataset: Arc<Dataset>,
    reach: Vec<Reach>,
    client: Client,
}

impl Generator {
    /// The operations of a client in phase `phase` of the run with the data's seed, on these shards; those without
    /// slots are left out, one must have some.
    pub(crate) fn new(
        recipe: Arc<Recipe>,
        dataset: Arc<Dataset>,
        phase: u32,
        client: Client,
        shards: impl IntoIterator<Item = u16>,
    ) -> Self {
        let stream = u64::from(phase) << 32 | u64::from(client.stream);
        let rng = Xoshiro256PlusPlus::seed_from_u64(mix64(dataset.shape.seed ^ mix64(stream)));
        let weights = weights(&dataset, recipe.directories);
        let shards: Vec<u16> =
            shards.into_iter().filter(|&shard| weights[usize::from(shard)] > 0.0).collect();
        let sum: f64 = shards.iter().map(|&shard| weights[usize::from(shard)]).sum();
        let mut before = 0.0;
        let reach: Vec<Reach> = shards
            .iter()
            .map(|&shard| {
                before += weights[usize::from(shard)];
                let end = (before / sum * f64::from(u32::MAX)) as u32;
                let directories = match recipe.directories {
                    DirectoryDistribution::Zipfian(exponent) => {
                        Some(Ranks::new(dataset.directories(shard), exponent))
                    }
                    DirectoryDistribution::Uniform | DirectoryDistribution::HotShard(_) => None,
                };
                let place = u64::from(client.number);
                Reach { shard, end, draw: KeyDraw::new(recipe.keys), directories, place }
            })
            .collect();
        debug_assert!(!reach.is_empty());
        Generator { rng, recipe, dataset, reach, client }
    }

    /// The next operation; `None` where the recipe is over after one pass, and it is over.
    pub(crate) fn next(&mut self) -> Option<Op> {
        let kind = self.recipe.mix.kind(self.rng.next_u32());
        let mut at = self.shard();
        let (least, most) = self.recipe.scan_entries;
        let count = match kind {
            OpKind::Batch => self.recipe.batch,
            OpKind::Scan if least < most => least + below(self.rng.next_u32(), most - least + 1),
            OpKind::Scan | OpKind::Newest => most,
            _ => 1,
        };
        let (directory, slot) = if self.recipe.keys == KeyDistribution::Sequential {
            loop {
                match self.walk(at) {
                    Some(found) => break found,
                    None => {
                        // This shard is done; the pass ends when all are.
                        self.reach.remove(at);
                        at = 0;
                        if self.reach.is_empty() {
                            return None;
                        }
                    }
                }
            }
        } else {
            self.choose(at)
        };
        let shard = self.reach[at].shard;
        let draw = if kind == OpKind::AsOf { self.rng.next_u32() } else { 0 };
        Some(Op { kind, shard, directory, slot, count, draw })
    }

    /// Which of the shards in reach.
    fn shard(&mut self) -> usize {
        if self.reach.len() == 1 {
            return 0;
        }
        let draw = self.rng.next_u32();
        self.reach.iter().position(|reach| draw < reach.end).unwrap_or(self.reach.len() - 1)
    }

    /// Directory and slot by the recipe's distributions.
    fn choose(&mut self, at: usize) -> (u32, u32) {
        let Reach { shard, draw, directories, .. } = &mut self.reach[at];
        let (dataset, shard) = (&self.dataset, *shard);
        match directories {
            None => {
                let index = draw.index(&mut self.rng, dataset.loaded(shard), dataset.visible(shard));
                dataset.at(shard, index)
            }
            Some(directories) => {
                let directory = directories.index(&mut self.rng);
                let rows = dataset.rows(shard, directory);
                let row = draw.index(&mut self.rng, rows, rows);
                (directory, dataset.row(shard, directory, row))
            }
        }
    }

    /// The next directory and slot of this client's walk; `None` at the end of the only pass. A place is one directory
    /// and as many of its rows as a batch takes.
    fn walk(&mut self, at: usize) -> Option<(u32, u32)> {
        let Reach { shard, place, .. } = &mut self.reach[at];
        let directories = u64::from(self.dataset.directories(*shard));
        let rows_max = u64::from(self.dataset.rows(*shard, 0));
        let places = directories * rows_max.div_ceil(u64::from(self.recipe.batch));
        loop {
            if *place >= places && self.recipe.once {
                return None;
            }
            let here = *place % places;
            *place += u64::from(self.client.of);
            let directory = (here % directories) as u32;
            let row = (here / directories) * u64::from(self.recipe.batch);
            // Directories differ by a row at most, so that this skips little.
            if row < u64::from(self.dataset.rows(*shard, directory)) {
                return Some((directory, self.dataset.row(*shard, directory, row as u32)));
            }
        }
    }
}

/// What share of all operations each shard gets: by its slots, or as a hot shard has it.
pub(crate) fn weights(dataset: &Dataset, directories: DirectoryDistribution) -> Vec<f64> {
    let loaded: Vec<f64> = (0..dataset.shards()).map(|shard| f64::from(dataset.loaded(shard))).collect();
    let sum: f64 = loaded.iter().sum();
    let mut weights: Vec<f64> = loaded.iter().map(|loaded| loaded / sum.max(1.0)).collect();
    if let DirectoryDistribution::HotShard(share) = directories
        && let Some(hot) = weights.iter().position(|&weight| weight > 0.0 && weight < 1.0)
    {
        let others = 1.0 - weights[hot];
        for weight in &mut weights {
            *weight *= (1.0 - share) / others;
        }
        weights[hot] = share;
    }
    weights
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::key::{Shape, ValueBytes};
    use crate::bench::workload::{Changes, Workload};
    use std::collections::BTreeMap;

    fn dataset(keys: u32, directories: &[u32]) -> Arc<Dataset> {
        let value_bytes = ValueBytes { min: 100, max: 100 };
        let shape = Shape { seed: 42, key_bytes: 24, ordered: false, value_bytes };
        Arc::new(Dataset::new(shape, keys, 1000, directories).unwrap())
    }

    fn generator(recipe: Recipe, dataset: &Arc<Dataset>, phase: u32, stream: u32, of: u32) -> Generator {
        let client = Client { stream, number: stream, of };
        Generator::new(Arc::new(recipe), dataset.clone(), phase, client, 0..dataset.shards())
    }

    fn operations(workload: Workload, changes: Changes, phase: u32, stream: u32) -> Vec<Op> {
        let mut generator =
            generator(Recipe::new(workload, &changes), &dataset(1000, &[3, 0, 7]), phase, stream, 10);
        (0..10_000).map(|_| generator.next().unwrap()).collect()
    }

    #[test]
    fn the_seed_decides_the_operations() {
        let of = |phase, stream| operations(Workload::YcsbE, Changes::default(), phase, stream);
        assert_eq!(of(2, 3), of(2, 3));
        assert_ne!(of(2, 3), of(3, 3));
        assert_ne!(of(2, 3), of(2, 4));
    }

    /// Pinned, so that a run of today can be repeated by the command of tomorrow.
    #[test]
    fn the_operations_of_a_seed_stay_the_same() {
        let hash = |workload| {
            operations(workload, Changes::default(), 1, 0)
                .iter()
                .fold(0, |hash, op| mix64(hash ^ u64::from(op.slot) ^ (op.kind as u64) << 32))
        };
        assert_eq!([Workload::Mix, Workload::YcsbA, Workload::YcsbD].map(hash), PINNED);
    }

    const PINNED: [u64; 3] =
        [7_189_136_627_374_823_933, 1_889_033_351_441_361_932, 9_420_491_483_241_396_670];

    #[test]
    fn slots_lie_where_they_are_said_to_and_uniform_reaches_all() {
        let dataset = dataset(1000, &[3, 0, 7]);
        let mut seen = BTreeMap::new();
        for op in operations(Workload::Reads, Changes::default(), 1, 1) {
            let first = dataset.row(op.shard, 0, 0);
            assert_eq!(dataset.at(op.shard, op.slot - first), (op.directory, op.slot), "{op:?}");
            *seen.entry(op.slot).or_insert(0) += 1;
        }
        assert!(seen.len() > 990 && seen.values().all(|&count| count < 40), "{}", seen.len());
    }

    #[test]
    fn a_zipfian_directory_draws_more_than_its_share() {
        let directories = Some(DirectoryDistribution::Zipfian(0.99));
        let mut counts = BTreeMap::new();
        for op in operations(Workload::Tenants, Changes { directories, ..Changes::default() }, 1, 1) {
            assert!(op.directory < [3, 0, 7][usize::from(op.shard)]);
            *counts.entry((op.shard, op.directory)).or_insert(0) += 1;
        }
        // 30 % of all go to shard 0, and 54 % of those to the first of its three directories.
        assert!((1500..1740).contains(&counts[&(0, 0)]), "uniform would be 1000: {counts:?}");
        assert!(counts[&(2, 0)] > 2 * counts[&(2, 6)], "{counts:?}");
    }

    #[test]
    fn the_hot_shard_gets_its_share() {
        let directories = Some(DirectoryDistribution::HotShard(0.9));
        let operations = operations(Workload::Commits, Changes { directories, ..Changes::default() }, 1, 1);
        let hot = operations.iter().filter(|op| op.shard == 0).count();
        assert!((8800..9200).contains(&hot), "{hot}");
        // One shard alone is hot anyway.
        assert_eq!(weights(&dataset(10, &[5]), DirectoryDistribution::HotShard(0.5)), [1.0]);
    }

    /// Clients together put every slot exactly once, batches stay within a directory, and then it is over.
    #[test]
    fn one_pass_covers_every_slot_once() {
        for (keys, directories, batch, clients) in [
            (1000, vec![3, 0, 7], 1, 5),
            (1003, vec![3, 7], 10, 3),
            (5, vec![20, 20], 100, 4),
            (999, vec![1], 64, 7),
        ] {
            let dataset = dataset(keys, &directories);
            let mut seen = vec![0; keys as usize + 1000];
            for client in 0..clients {
                let mut generator = generator(Recipe::load(batch), &dataset, 1, client, clients);
                while let Some(op) = generator.next() {
                    for slot in dataset.batch(&op) {
                        seen[slot as usize] += 1;
                        assert!(dataset.slots_in(op.shard, op.directory, &[]).contains(&slot));
                    }
                }
            }
            let written: u32 = seen.iter().sum();
            assert!(written == keys && seen.iter().all(|&count| count <= 1), "{keys} keys: {written} puts");
        }
    }
}
