//! A row of the table: what it measures, every figure, and what became of its goal. Pure.

use crate::engines::{Kind, Settings};
use crate::measure::{Measured, median};
use crate::trial::ONE_INSERTS;
use serde::Serialize;

/// Whose figure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// Quipu's.
    Ours,
    /// A peer's.
    Peer,
    /// The raw floor's.
    Floor,
}

/// One engine with one kind of clients.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) side: Side,
    /// The engine, and its variant where there are several.
    pub(crate) engine: String,
    /// Its clients.
    pub(crate) clients: String,
    /// What counts; the median of the rounds.
    pub(crate) value: f64,
    /// The value of each round, in turn.
    pub(crate) rounds: Vec<f64>,
    /// Nanoseconds of the round that counts; 0 where nothing was timed one by one.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
    /// The slowest second as a share of the mean.
    pub(crate) slowest: Option<f64>,
    /// Operations in each second of the round that counts.
    pub(crate) seconds: Vec<u64>,
    /// The share of the machine's processor time that the hypervisor took in each round; 0 where that was not asked.
    pub(crate) stolen: Vec<f64>,
}

impl Figure {
    /// From the rounds, by their rates times `scale`; `None` where there are none.
    pub(crate) fn rates(
        side: Side,
        engine: impl Into<String>,
        clients: impl Into<String>,
        rounds: Vec<Measured>,
        scale: f64,
    ) -> Option<Figure> {
        let values = rounds.iter().map(|round| round.rate * scale).collect();
        let stolen = rounds.iter().map(|round| round.stolen).collect();
        let middle = median(rounds)?;
        Some(Figure {
            side,
            engine: engine.into(),
            clients: clients.into(),
            value: middle.rate * scale,
            rounds: values,
            p50: middle.p50,
            p99: middle.p99,
            p999: middle.p999,
            max: middle.max,
            slowest: middle.slowest(),
            seconds: middle.seconds,
            stolen,
        })
    }

    /// A value that is no rate.
    pub(crate) fn value(
        side: Side,
        engine: impl Into<String>,
        clients: impl Into<String>,
        value: f64,
    ) -> Figure {
        Figure {
            side,
            engine: engine.into(),
            clients: clients.into(),
            value,
            rounds: vec![value],
            p50: 0,
            p99: 0,
            p999: 0,
            max: 0,
            slowest: None,
            seconds: Vec::new(),
            stolen: Vec::new(),
        }
    }
}

/// What a row is to reach.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// In words, like "20 x the best peer".
    pub(crate) text: String,
    /// What is to be reached.
    pub(crate) bound: f64,
    /// Whether more is better.
    pub(crate) at_least: bool,
    /// What was; `None` where something to compare with was not measured.
    pub(crate) reached: Option<f64>,
    /// In words, what was compared with what.
    pub(crate) compared: String,
}

impl Goal {
    /// Quipu's best figure over the best of another side's, more being better.
    pub(crate) fn over(text: &str, bound: f64, figures: &[Figure], against: &[Figure]) -> Goal {
        let (ours, other) = (best(figures), best(against));
        Goal {
            text: text.to_string(),
            bound,
            at_least: true,
            reached: ratio(ours, other),
            compared: format!("{} over {}", name(ours), name(other)),
        }
    }

    /// A value that is to be at most the bound.
    pub(crate) fn at_most(text: &str, bound: f64, reached: Option<f64>, compared: impl Into<String>) -> Goal {
        Goal { text: text.to_string(), bound, at_least: false, reached, compared: compared.into() }
    }

    /// A value that is to be at least the bound.
    pub(crate) fn at_least(
        text: &str,
        bound: f64,
        reached: Option<f64>,
        compared: impl Into<String>,
    ) -> Goal {
        Goal { text: text.to_string(), bound, at_least: true, reached, compared: compared.into() }
    }

    /// Whether it was reached; `None` where that is not known.
    pub(crate) fn met(&self) -> Option<bool> {
        let reached = self.reached?;
        Some(if self.at_least { reached >= self.bound } else { reached <= self.bound })
    }

    /// "reached", "not reached" or "not measured".
    pub(crate) fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "reached",
            Some(false) => "not reached",
            None => "not measured",
        }
    }
}

/// The figure with the highest value.
pub(crate) fn best(figures: &[Figure]) -> Option<&Figure> {
    figures.iter().max_by(|one, other| one.value.total_cmp(&other.value))
}

fn ratio(ours: Option<&Figure>, other: Option<&Figure>) -> Option<f64> {
    let (ours, other) = (ours?, other?);
    (other.value > 0.0).then(|| ours.value / other.value)
}

fn name(figure: Option<&Figure>) -> String {
    figure.map_or("nothing".to_string(), |figure| format!("{} ({})", figure.engine, figure.clients))
}

/// A row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Its number, as the command line has it.
    pub(crate) number: u32,
    pub(crate) title: String,
    /// What it measures, in a sentence or two.
    pub(crate) what: String,
    /// Of the figures' values: "commits/s".
    pub(crate) unit: String,
    pub(crate) figures: Vec<Figure>,
    /// Whether the figures are a matrix of engines and phases (which stand in place of the clients).
    pub(crate) matrix: bool,
    /// Whether its plot shows the rate of each second too.
    pub(crate) over_time: bool,
    pub(crate) goals: Vec<Goal>,
    /// How each engine was set up.
    pub(crate) settings: Vec<(String, Settings)>,
    /// What else is to be known.
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// An empty row.
    pub(crate) fn new(number: u32, title: &str, what: impl Into<String>, unit: &str) -> Row {
        Row {
            number,
            title: title.to_string(),
            what: what.into(),
            unit: unit.to_string(),
            figures: Vec::new(),
            matrix: false,
            over_time: false,
            goals: Vec::new(),
            settings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The figures of one side.
    pub(crate) fn of(&self, side: Side) -> Vec<Figure> {
        self.figures.iter().filter(|figure| figure.side == side).cloned().collect()
    }

    /// A goal beside the best peer, each set up as its documentation recommends; and, where a peer was also set up in another way and is
    /// faster so, a note of what comes of that.
    pub(crate) fn beside_peers(&mut self, text: &str, bound: f64) {
        let (ours, peers) = (self.of(Side::Ours), self.of(Side::Peer));
        let documented: Vec<Figure> =
            peers.iter().filter(|figure| !figure.engine.contains(ONE_INSERTS)).cloned().collect();
        self.goals.push(Goal::over(text, bound, &ours, &documented));
        let all = Goal::over(text, bound, &ours, &peers);
        if let (Some(reached), true) =
            (all.reached, best(&peers).is_some_and(|best| best.engine.contains(ONE_INSERTS)))
        {
            self.notes.push(format!(
                "The goal is held against peers that are set up as their documentation recommends. Against one that is set up \
                 otherwise, {}: {reached:.2}.",
                all.compared
            ));
        }
    }

    /// The figures of one engine, in all its variants.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<Figure> {
        self.figures.iter().filter(|figure| figure.engine.starts_with(kind.name())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(side: Side, value: f64) -> Figure {
        Figure::value(side, "engine", "clients", value)
    }

    #[test]
    fn a_goal_compares_the_best_with_the_best() {
        let (ours, peers) = (
            [10.0, 30.0].map(|value| figure(Side::Ours, value)),
            [3.0, 1.0].map(|value| figure(Side::Peer, value)),
        );
        let goal = Goal::over("8 x", 8.0, &ours, &peers);
        assert_eq!((goal.reached, goal.met()), (Some(10.0), Some(true)));
        assert_eq!(Goal::over("11 x", 11.0, &ours, &peers).verdict(), "not reached");
        assert_eq!(Goal::over("8 x", 8.0, &ours, &[]).verdict(), "not measured");
        assert_eq!(Goal::over("8 x", 8.0, &[], &peers).met(), None);
    }

    #[test]
    fn a_peer_that_is_set_up_otherwise_is_noted_beside_the_goal() {
        let mut row = Row::new(1, "", "", "");
        let peer = |engine: &str, value| Figure::value(Side::Peer, engine, "clients", value);
        row.figures = vec![figure(Side::Ours, 30.0), peer("a", 3.0), peer("b, for writes", 2.0)];
        row.beside_peers("8 x", 8.0);
        assert_eq!((row.goals[0].reached, row.notes.len()), (Some(10.0), 0));
        row.figures.push(peer(&format!("b, for writes, {ONE_INSERTS}"), 5.0));
        row.goals.clear();
        row.beside_peers("8 x", 8.0);
        assert_eq!(row.goals[0].reached, Some(10.0));
        assert!(row.notes[0].ends_with("one inserts (clients): 6.00."), "{}", row.notes[0]);
    }

    #[test]
    fn less_is_better_where_a_bound_is_an_upper_one() {
        assert_eq!(Goal::at_most("", 1.3, Some(1.2), "").met(), Some(true));
        assert_eq!(Goal::at_most("", 1.3, Some(1.4), "").met(), Some(false));
        assert_eq!(Goal::at_least("", 0.8, Some(0.7), "").met(), Some(false));
        assert_eq!(Goal::at_most("", 1.3, None, "").verdict(), "not measured");
    }

    #[test]
    fn the_figure_of_rounds_is_their_median() {
        let round = |rate| Measured { rate, p99: rate as u64, ..Measured::default() };
        let rounds = vec![round(5.0), round(1.0), round(3.0)];
        let figure = Figure::rates(Side::Ours, "Quipu", "on-core", rounds, 100.0);
        let figure = figure.map(|figure| (figure.value, figure.rounds, figure.p99));
        assert_eq!(figure, Some((300.0, vec![500.0, 100.0, 300.0], 3)));
        assert!(Figure::rates(Side::Ours, "", "", Vec::new(), 1.0).is_none());
    }
}
