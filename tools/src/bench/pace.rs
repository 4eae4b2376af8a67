//! How fast clients go, and who they are: closed or open loop, split over the shards. Pure.

use super::draw::DirectoryDistribution;
use super::schedule::Arrivals;
use clap::ValueEnum;
use serde::Serialize;

/// Where clients run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Clients {
    /// Tasks on the shards' own cores
    OnCore,
    /// Async tasks on other threads
    Async,
    /// Plain threads that block, one operation at a time each
    Blocking,
}

impl Clients {
    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Clients::OnCore => "on-core",
            Clients::Async => "async",
            Clients::Blocking => "blocking",
        }
    }
}

/// How fast clients go.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Pace {
    /// So many operations are always in flight, by shard.
    Closed { in_flight: Vec<u32> },
    /// Operations start at these rates a second, by shard, with at most `cap` of each shard in flight.
    Open { arrivals: Arrivals, rates: Vec<f64>, cap: u32 },
}

impl Pace {
    /// `in_flight` a shard that has any weight; where one is hot, their sum by weight.
    pub(crate) fn closed(in_flight: u32, weights: &[f64], directories: DirectoryDistribution) -> Self {
        let shards = weights.iter().filter(|&&weight| weight > 0.0).count();
        let total = f64::from(in_flight) * shards as f64;
        let of = |weight: f64| match directories {
            _ if weight <= 0.0 => 0,
            DirectoryDistribution::HotShard(_) => ((total * weight).round() as u32).max(1),
            _ => in_flight,
        };
        Pace::Closed { in_flight: weights.iter().map(|&weight| of(weight)).collect() }
    }

    /// `rate` operations a second, by weight.
    pub(crate) fn open(rate: f64, arrivals: Arrivals, weights: &[f64], cap: u32) -> Self {
        Pace::Open { arrivals, rates: weights.iter().map(|weight| weight * rate).collect(), cap }
    }

    /// One shard's part; `None` where it has none.
    pub(crate) fn on_shard(&self, shard: u16) -> Option<Pace> {
        let shard = usize::from(shard);
        match self {
            Pace::Closed { in_flight } => {
                let in_flight = *in_flight.get(shard).filter(|&&in_flight| in_flight > 0)?;
                Some(Pace::Closed { in_flight: vec![in_flight] })
            }
            Pace::Open { arrivals, rates, cap } => {
                let rate = *rates.get(shard).filter(|&&rate| rate > 0.0)?;
                Some(Pace::Open { arrivals: *arrivals, rates: vec![rate], cap: *cap })
            }
        }
    }

    /// How many threads there is work for.
    pub(crate) fn threads(&self, wanted: u32) -> u32 {
        match self {
            Pace::Closed { in_flight } => wanted.min(in_flight.iter().sum()).max(1),
            Pace::Open { .. } => wanted.max(1),
        }
    }

    /// Operations that a closed loop has in flight in all.
    pub(crate) fn in_flight(&self) -> Option<u32> {
        match self {
            Pace::Closed { in_flight } => Some(in_flight.iter().sum()),
            Pace::Open { .. } => None,
        }
    }

    /// The rate and the arrivals of an open loop.
    pub(crate) fn offered(&self) -> Option<(f64, Arrivals)> {
        match self {
            Pace::Closed { .. } => None,
            Pace::Open { arrivals, rates, .. } => Some((rates.iter().sum(), *arrivals)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_with_data_gets_its_part() {
        let closed = Pace::closed(512, &[0.4, 0.0, 0.6], DirectoryDistribution::Uniform);
        assert_eq!(closed, Pace::Closed { in_flight: vec![512, 0, 512] });
        assert_eq!(closed.on_shard(1), None);
        assert_eq!(closed.threads(3000), 1024);
        let hot = Pace::closed(100, &[0.999, 0.001], DirectoryDistribution::HotShard(0.999));
        assert_eq!(hot, Pace::Closed { in_flight: vec![200, 1] });
        let open = Pace::open(1000.0, Arrivals::Constant, &[0.25, 0.0, 0.75], 10);
        assert_eq!(open.offered(), Some((1000.0, Arrivals::Constant)));
        assert_eq!(open.on_shard(2).and_then(|pace| pace.offered()), Some((750.0, Arrivals::Constant)));
        assert_eq!(open.on_shard(1), None);
    }
}
