//! Which key, which directory: distributions, as the command line has them and as they are drawn. Pure.
//!
//! *Zipfian* is the scrambled zipfian of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC
//! 2010; `ScrambledZipfianGenerator` in its sources): a rank is drawn from a zipfian over 10^10 items, and its FNV-1a
//! hash modulo the number of keys is the key. So the popular keys lie scattered, and which keys are popular does not
//! depend on how many there are. *Latest* is YCSB's too: the zipfian rank counts backwards from the newest key.
//!
//! YCSB computes its zipfian by Gray et al.'s approximation (SIGMOD 1994), which needs the sum of all items'
//! weights; here it is rejection sampling (`rand_distr`), which is exact, needs no sum and takes any exponent.

use rand::Rng;
use rand_distr::{Distribution, Zipf};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The exponent that YCSB uses, and the default here.
pub(crate) const YCSB_EXPONENT: f64 = 0.99;

/// Items of YCSB's scrambled zipfian, whatever the number of keys.
const YCSB_ITEMS: f64 = 1e10;

/// The largest exponent: beyond it practically all draws are one key.
const EXPONENT_MAX: f64 = 8.0;

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum KeyDistribution {
    /// Every key alike.
    Uniform,
    /// YCSB's scrambled zipfian with this exponent.
    Zipfian(f64),
    /// Zipfian backwards from the newest key.
    Latest(f64),
    /// One after the other, all clients together.
    Sequential,
}

/// How directories are chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum DirectoryDistribution {
    /// Every directory alike.
    Uniform,
    /// Zipfian over the directories of a shard, the first of them the most popular.
    Zipfian(f64),
    /// This share of all operations goes to one shard.
    HotShard(f64),
}

/// Reads "name" or "name:number".
fn named(text: &str, default: f64) -> Result<(&str, f64), String> {
    match text.split_once(':') {
        None => Ok((text, default)),
        Some((name, number)) => {
            let number = number.parse::<f64>().map_err(|_| format!("{number:?} is not a number"))?;
            Ok((name, number))
        }
    }
}

fn exponent(exponent: f64) -> Result<f64, String> {
    match exponent {
        exponent if exponent > 0.0 && exponent <= EXPONENT_MAX => Ok(exponent),
        _ => Err(format!("the exponent must be above 0 and at most {EXPONENT_MAX}")),
    }
}

impl FromStr for KeyDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match named(text, YCSB_EXPONENT)? {
            ("zipfian", number) => Ok(KeyDistribution::Zipfian(exponent(number)?)),
            ("latest", number) => Ok(KeyDistribution::Latest(exponent(number)?)),
            _ if text == "uniform" => Ok(KeyDistribution::Uniform),
            _ if text == "sequential" => Ok(KeyDistribution::Sequential),
            _ => Err("use uniform, zipfian[:EXPONENT], latest[:EXPONENT] or sequential".to_string()),
        }
    }
}

impl fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyDistribution::Uniform => f.write_str("uniform"),
            KeyDistribution::Zipfian(exponent) => write!(f, "zipfian:{exponent}"),
            KeyDistribution::Latest(exponent) => write!(f, "latest:{exponent}"),
            KeyDistribution::Sequential => f.write_str("sequential"),
        }
    }
}

impl FromStr for DirectoryDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match named(text, f64::NAN)? {
            ("zipfian", number) => {
                let number = if text == "zipfian" { YCSB_EXPONENT } else { number };
                Ok(DirectoryDistribution::Zipfian(exponent(number)?))
            }
            ("hot-shard", number) => {
                let share = if text == "hot-shard" { 0.9 } else { number };
                match share {
                    share if share > 0.0 && share <= 1.0 => Ok(DirectoryDistribution::HotShard(share)),
                    _ => Err("the share of the hot shard must be above 0 and at most 1".to_string()),
                }
            }
            _ if text == "uniform" => Ok(DirectoryDistribution::Uniform),
            _ => Err("use uniform, zipfian[:EXPONENT] or hot-shard[:SHARE]".to_string()),
        }
    }
}

impl fmt::Display for DirectoryDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryDistribution::Uniform => f.write_str("uniform"),
            DirectoryDistribution::Zipfian(exponent) => write!(f, "zipfian:{exponent}"),
            DirectoryDistribution::HotShard(share) => write!(f, "hot-shard:{share}"),
        }
    }
}

impl Serialize for KeyDistribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for DirectoryDistribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A scrambled zipfian draw.
#[derive(Clone, Debug)]
pub(crate) struct Scrambled(Zipf<f64>);

impl Scrambled {
    /// Draws with this exponent.
    pub(crate) fn new(exponent: f64) -> Self {
        Scrambled(zipf(YCSB_ITEMS, exponent))
    }

    /// One of `count`; it may not be 0.
    pub(crate) fn index(&self, rng: &mut impl Rng, count: u32) -> u32 {
        let rank = self.0.sample(rng) as u64 - 1;
        (fnv1a(rank) % u64::from(count)) as u32
    }
}

/// A zipfian draw whose ranks are the numbers: the first is the most popular.
#[derive(Clone, Debug)]
pub(crate) struct Ranks(Zipf<f64>);

impl Ranks {
    /// Draws from `0..count`, which may not be empty.
    pub(crate) fn new(count: u32, exponent: f64) -> Self {
        Ranks(zipf(f64::from(count.max(1)), exponent))
    }

    /// A number.
    pub(crate) fn index(&self, rng: &mut impl Rng) -> u32 {
        self.0.sample(rng) as u32 - 1
    }
}

/// Indices of keys, by a distribution.
#[derive(Clone, Debug)]
pub(crate) enum KeyDraw {
    Uniform,
    Scrambled(Scrambled),
    /// Backwards from the newest.
    Latest {
        exponent: f64,
        /// For so many keys; made again when they have grown by half.
        made: Option<(u32, Ranks)>,
    },
}

impl KeyDraw {
    /// Draws by this distribution. Sequential order is none: whoever draws counts.
    pub(crate) fn new(distribution: KeyDistribution) -> Self {
        match distribution {
            KeyDistribution::Uniform | KeyDistribution::Sequential => KeyDraw::Uniform,
            KeyDistribution::Zipfian(exponent) => KeyDraw::Scrambled(Scrambled::new(exponent)),
            KeyDistribution::Latest(exponent) => KeyDraw::Latest { exponent, made: None },
        }
    }

    /// One of the keys that there are `now`, of which `first` were there at the beginning: which key a zipfian draw
    /// means does not move while keys are added. `first` may not be 0.
    pub(crate) fn index(&mut self, rng: &mut impl Rng, first: u32, now: u32) -> u32 {
        let now = now.max(first);
        match self {
            KeyDraw::Uniform => below(rng.next_u32(), now),
            KeyDraw::Scrambled(scrambled) => scrambled.index(rng, first),
            KeyDraw::Latest { exponent, made } => {
                let stale = |made: &(u32, _)| now < made.0 || now - made.0 > made.0 / 2;
                if made.as_ref().is_none_or(stale) {
                    *made = Some((now, Ranks::new(now, *exponent)));
                }
                let back = made.as_ref().map_or(0, |(_, ranks)| ranks.index(rng));
                now - 1 - back.min(now - 1)
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "items are at least 1 and finite, exponents above 0")]
fn zipf(items: f64, exponent: f64) -> Zipf<f64> {
    Zipf::new(items, exponent).expect("bounds were checked")
}

/// Maps a uniform 32-bit draw to `0..bound`, by multiplication (Lemire 2019); biased by at most `bound / 2^32`.
pub(crate) fn below(draw: u32, bound: u32) -> u32 {
    ((u64::from(draw) * u64::from(bound)) >> 32) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads a number over all 64 bits, one to one.
pub(crate) fn mix64(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over the number's eight bytes, the lowest first, without its sign: `Utils.hash` of YCSB.
fn fnv1a(number: u64) -> u64 {
    let hash = number.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash as i64).unsigned_abs()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    const DRAWS: u32 = 200_000;

    fn rng() -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(7)
    }

    /// The sum of `rank^-exponent` up to `items`, its tail by an integral.
    fn zeta(items: f64, exponent: f64) -> f64 {
        let exact = 1_000_000.0f64.min(items) as u64;
        let head: f64 = (1..=exact).map(|rank| (rank as f64).powf(-exponent)).sum();
        let tail = |x: f64| x.powf(1.0 - exponent) / (1.0 - exponent);
        head + (tail(items) - tail(exact as f64)).max(0.0)
    }

    /// Checks how often keys come against how often they should, to five standard deviations.
    fn check(got: u32, share: f64, what: &str) {
        let expected = share * f64::from(DRAWS);
        let bound = 5.0 * (expected * (1.0 - share)).sqrt() + 1.0;
        assert!((f64::from(got) - expected).abs() < bound, "{what}: {got} instead of {expected} +- {bound}");
    }

    #[test]
    fn scrambled_zipfian_is_that_of_ycsb() {
        // `zetan` for 10^10 items at 0.99 stands in YCSB's source as a constant.
        assert!((zeta(YCSB_ITEMS, 0.99) - 26.469_028_201_783_02).abs() < 1e-3);
        for exponent in [0.5, 0.99, 1.2] {
            let (scrambled, mut rng) = (Scrambled::new(exponent), rng());
            let keys = 1000;
            let mut counts = vec![0; keys as usize];
            for _ in 0..DRAWS {
                counts[scrambled.index(&mut rng, keys) as usize] += 1;
            }
            // A key's share: its popular ranks, and its part of all the ranks after them, which spread evenly.
            let (zeta, ranks) = (zeta(YCSB_ITEMS, exponent), 100_000u64);
            let mut shares = vec![0.0; keys as usize];
            let mut rest = 1.0;
            for rank in 0..ranks {
                let share = ((rank + 1) as f64).powf(-exponent) / zeta;
                shares[(fnv1a(rank) % u64::from(keys)) as usize] += share;
                rest -= share;
            }
            for (key, (&got, share)) in counts.iter().zip(shares).enumerate() {
                check(got, share + rest / f64::from(keys), &format!("exponent {exponent}, key {key}"));
            }
        }
    }

    #[test]
    fn latest_counts_back_from_the_newest() {
        let (mut draw, mut rng) = (KeyDraw::new(KeyDistribution::Latest(0.99)), rng());
        let (first, now) = (500, 1000);
        let mut counts = vec![0; now as usize];
        for _ in 0..DRAWS {
            counts[draw.index(&mut rng, first, now) as usize] += 1;
        }
        let zeta: f64 = (1..=now).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1, 2, 3, 10, 100, 1000] {
            let share = f64::from(rank).powf(-0.99) / zeta;
            check(counts[(now - rank) as usize], share, &format!("rank {rank}"));
        }
        assert_eq!(draw.index(&mut rng, 1, 1), 0);
    }

    #[test]
    fn uniform_reaches_what_was_added_and_zipfian_stays() {
        let mut rng = rng();
        let mut uniform = KeyDraw::new(KeyDistribution::Uniform);
        assert!((0..1000).any(|_| uniform.index(&mut rng, 10, 1000) >= 10));
        let mut zipfian = KeyDraw::new(KeyDistribution::Zipfian(0.99));
        assert!((0..1000).all(|_| zipfian.index(&mut rng, 10, 1000) < 10));
    }

    #[test]
    fn distributions_read_back_what_they_write() {
        for text in ["uniform", "zipfian:0.99", "latest:0.5", "sequential"] {
            assert_eq!(text.parse::<KeyDistribution>().unwrap().to_string(), text);
        }
        for text in ["uniform", "zipfian:1.2", "hot-shard:0.8"] {
            assert_eq!(text.parse::<DirectoryDistribution>().unwrap().to_string(), text);
        }
        assert_eq!("zipfian".parse(), Ok(KeyDistribution::Zipfian(0.99)));
        assert_eq!("hot-shard".parse(), Ok(DirectoryDistribution::HotShard(0.9)));
    }

    #[test]
    fn unknown_distributions_and_bad_numbers_are_refused() {
        for text in
            ["", "normal", "zipfian:", "zipfian:0", "zipfian:-1", "latest:nan", "uniform:1", "zipfian:9"]
        {
            assert!(text.parse::<KeyDistribution>().is_err(), "{text}");
        }
        for text in ["", "latest", "hot-shard:0", "hot-shard:1.5", "zipfian:x", "uniform:2", "hot-shard:nan"]
        {
            assert!(text.parse::<DirectoryDistribution>().is_err(), "{text}");
        }
    }
}
