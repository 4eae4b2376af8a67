//! Drives an engine from plain threads: closed loop, open loop, and loads.
//!
//! - Closed loop: each thread starts its next operation when the last one has ended.
//! - Open loop: operations have times at which they are to start, evenly spaced and dealt out to the threads in turn;
//!   latency counts from then, whenever they really start.

use crate::engines::{Client, Result, Store, View};
use crate::measure::{Measured, Recorder, Times, Window, interrupted};
use crate::ops::{Data, Ops, Slots, Work, lost};
use crate::shared::key::Key;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Keys of a batch of a load that is not itself measured.
pub(crate) const LOAD_BATCH: u32 = 500;

/// What clients do on what data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// The data.
    pub(crate) data: Data,
    /// What they do.
    pub(crate) work: Work,
    /// What their reads see.
    pub(crate) view: View,
    /// Operations of each client, where they are not to go on until the time is over.
    pub(crate) each: Option<u64>,
}

/// A closed loop of so many threads.
pub(crate) fn closed(store: &dyn Store, spec: &Spec, threads: u32, times: Times) -> Result<Measured> {
    closed_loop(store, spec, threads, times, |ops, client| ops.perform(client).map(|()| 1))
}

/// A closed loop of so many threads, each of which reads so many keys in a call.
pub(crate) fn closed_together(
    store: &dyn Store,
    spec: &Spec,
    threads: u32,
    together: u32,
    times: Times,
) -> Result<Measured> {
    closed_loop(store, spec, threads, times, |ops, client| {
        let (slots, keys) = ops.next_gets(together)?;
        let (mut wrong, mut place) = (None, slots.iter());
        let found = client.get_many(&keys, &mut |value| {
            wrong = wrong.or(place.next().copied().filter(|&slot| !ops.right(slot, value)));
        })?;
        // Where one is missing, those behind it are taken for wrong ones, too.
        match wrong.or(slots.get(found).copied()) {
            Some(slot) => Err(lost(slot)),
            None => Ok(keys.len()),
        }
    })
}

/// A closed loop of so many threads. `perform` does what comes next, and answers how many operations that were.
fn closed_loop(
    store: &dyn Store,
    spec: &Spec,
    threads: u32,
    times: Times,
    perform: impl Fn(&mut Ops, &mut dyn Client) -> Result<usize> + Sync,
) -> Result<Measured> {
    let window = Window::now(times);
    on_threads(threads, |thread| {
        let mut client = store.client(spec.view)?;
        let mut ops = Ops::new(&spec.data, spec.work, Slots::ALL, thread).limited(spec.each);
        let mut recorder = Recorder::new(window);
        let mut started = Instant::now();
        while !window.over(started) && ops.more() {
            let performed = perform(&mut ops, &mut *client)?;
            let ended = Instant::now();
            (0..performed).for_each(|_| recorder.record(started, ended));
            started = ended;
        }
        client.drain()?;
        Ok(recorder)
    })
}

/// An open loop at so many operations a second.
pub(crate) fn open(
    store: &dyn Store,
    spec: &Spec,
    threads: u32,
    rate: f64,
    times: Times,
) -> Result<Measured> {
    let window = Window::open(times);
    let begin = Instant::now();
    on_threads(threads, |thread| {
        // Without this the kernel may wake the thread 50 us late. Where it refuses, it does.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut client = store.client(spec.view)?;
        let mut ops = Ops::new(&spec.data, spec.work, Slots::ALL, thread);
        let mut recorder = Recorder::new(window);
        for number in (u64::from(thread)..).step_by(threads as usize) {
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            if window.over(due) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            ops.perform(&mut *client)?;
            recorder.record(due, Instant::now());
        }
        Ok(recorder)
    })
}

fn on_threads(threads: u32, body: impl Fn(u32) -> Result<Recorder> + Sync) -> Result<Measured> {
    let notes = std::thread::scope(|scope| {
        let body = &body;
        let named = |thread| std::thread::Builder::new().name(format!("client-{thread}"));
        let threads: Vec<_> =
            (0..threads).map(|thread| named(thread).spawn_scoped(scope, move || body(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread?.join().unwrap_or_else(|_| Err("a client panicked".into())))
            .collect()
    });
    Measured::of(notes)
}

/// Puts every key once, in batches, from so many threads; the keys lie scattered. Returns how long the puts took,
/// until all are durable.
pub(crate) fn load(store: &dyn Store, data: &Data, batch: u32, threads: u32) -> Result<Duration> {
    let began = Instant::now();
    let next = AtomicU32::new(0);
    let shape = data.shape();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = store.client(View::Newest)?;
                    let mut pairs: Vec<(Key, Vec<u8>)> = Vec::new();
                    loop {
                        let from = next.fetch_add(batch, Ordering::Relaxed);
                        if from >= data.keys || interrupted() {
                            return client.drain();
                        }
                        let until = data.keys.min(from.saturating_add(batch));
                        pairs.resize_with((until - from) as usize, || (shape.key(0), Vec::new()));
                        for (slot, (key, value)) in (from..until).zip(&mut pairs) {
                            *key = shape.key(slot);
                            shape.fill(slot, 0, value);
                        }
                        client.commit(&mut pairs.iter().map(|(key, value)| (key.as_ref(), &value[..])))?;
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
    })?;
    store.persist()?;
    if interrupted() {
        return Err("interrupted".into());
    }
    Ok(began.elapsed())
}

/// Reads every key once, so that whatever caches there are have what they can hold.
pub(crate) fn touch(store: &dyn Store, data: &Data) -> Result<()> {
    let shape = data.shape();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2u32)
            .map(|thread| {
                let shape = &shape;
                scope.spawn(move || -> Result<()> {
                    let mut client = store.client(View::Newest)?;
                    for slot in (thread..data.keys).step_by(2) {
                        if !client.get(shape.key(slot).as_ref(), &mut |_| ())? {
                            return Err(crate::ops::lost(slot));
                        }
                        if interrupted() {
                            return Err("interrupted".into());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
    })
}
