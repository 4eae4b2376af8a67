//! Hosting shards: a thread each, with a runtime for the tasks of embedders.
//!
//! A shard's thread runs tokio's single-threaded runtime (tokio-uring's where io_uring is used, so that its files
//! work in on-core tasks too). The shard's loop is the runtime's main future: each time it is polled it does a
//! [turn](Core::turn), or two where it looked for news between. While there is more to do it wakes itself, and between its turns the runtime polls
//! on-core tasks and collects their timers and sockets; otherwise it sleeps until its ring, its mailbox, its
//! clock or an on-core commit wakes it.
//!
//! Before it sleeps it looks for news for a while, where that pays ([`Lookout`]), the runtime's tasks between.
//!
//! A runtime whose main future wakes itself does not park, and tokio-uring submits what on-core tasks have started when it
//! does. So a shard that stays awake parks for an instant every [`PARK_AFTER_NANOS`].

use super::local::Spawner;
use super::mailbox::Mailbox;
use super::serve::Spent;
use super::{Config, Core, Turn};
use crate::disk::io::Io;
use crate::disk::{Uring, open_best};
use crate::engine::{ShardRecovery, identity};
use crate::error::{Error, Result};
use crate::levels::{Budget, Divisor, Retention};
use crate::linger::{Awaited, Lookout, Stay};
use crate::log::LogOptions;
use crate::options::{Fixed, IoChoice, Options};
use crate::segment::SegmentOptions;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;

/// A shard that stays awake for so long parks for an instant: a write, and a look at its sockets that it makes anyway …
const PARK_AFTER_NANOS: u64 = 1_000_000;
/// … and for so long while it only looks for news beside its tasks: it would have parked if it had slept.
const PARK_AFTER_IDLE_NANOS: u64 = 50_000;
/// So long a busy shard sleeps between two turns while a log write is late. Kernel threads finish that write, and to yield gives way
/// to the shard's own scheduling group only (Linux puts each session, service or container into one): with another thread
/// of the group ready each time, such as io_uring's workers, kernel threads have waited for 60 to 200 ms.
const GIVE_WAY: Duration = Duration::from_micros(50);

thread_local! {
    /// This thread is a shard's.
    static HOSTING: Cell<bool> = const { Cell::new(false) };
}

/// A shard's thread.
pub(crate) struct Thread {
    handle: JoinHandle<()>,
}

impl Thread {
    /// Waits for it to end; unless the caller is a shard's thread, which must not wait.
    pub(crate) fn join(self) {
        if !is_hosting() {
            // A shard that panicked has printed why; its clients were told that it is closed.
            let _ = self.handle.join();
        }
    }
}

/// Whether the calling thread is a shard's.
pub(crate) fn is_hosting() -> bool {
    HOSTING.get()
}

/// All shards, opened.
pub(crate) struct Started {
    pub(crate) threads: Vec<Thread>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) shards: Vec<ShardRecovery>,
    pub(crate) io_kind: &'static str,
    pub(crate) io_fallback: Option<String>,
}

/// How many cores this process may use; the default number of shards.
pub(crate) fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    u16::try_from(cores).unwrap_or(crate::limits::SHARDS_MAX).min(crate::limits::SHARDS_MAX)
}

/// A number for a new engine that no other has.
pub(crate) fn random_id() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds each of its hashers from the system's random source.
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}

/// Opens all shards, each on a thread of its own, and waits until they are.
pub(crate) fn start(
    root: &Path,
    fixed: &Fixed,
    options: &Options,
    lock: &Arc<identity::Lock>,
) -> Result<Started> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut mailboxes = Vec::new();
    let mut waiting = Vec::new();
    for shard in 0..fixed.shards {
        let mailbox = Arc::new(Mailbox::new(options.mailbox));
        let (opened, receiver) = mpsc::channel();
        let setup = Setup {
            folder: identity::shard_folder(root, shard),
            config: config_of(shard, fixed, options)?,
            log: log_options_of(fixed, options),
            cache_bytes: options.cache_bytes / usize::from(fixed.shards),
            retention: options.retention,
            io: options.io,
            // With fewer cores than shards, several share one.
            core: cores.get(usize::from(shard) % cores.len().max(1)).filter(|_| options.pin).copied(),
            mailbox: mailbox.clone(),
            linger: options.linger,
            _lock: lock.clone(),
        };
        let spawned = std::thread::Builder::new()
            .name(format!("quipu-shard-{shard}"))
            .spawn(move || run(setup, &opened))
            .map_err(|error| Error::io("start the thread of", format!("shard {shard}"), error));
        match spawned {
            Ok(handle) => waiting.push((Thread { handle }, receiver)),
            Err(error) => {
                // Those that were started are told to close.
                mailboxes.iter().for_each(|mailbox: &Arc<Mailbox>| mailbox.end());
                return Err(error);
            }
        }
        mailboxes.push(mailbox);
    }
    let mut threads = Vec::new();
    let mut shards = Vec::new();
    let (mut io_kind, mut io_fallback) = ("", None);
    let mut failed = None;
    for (thread, receiver) in waiting {
        match receiver.recv() {
            Ok(Ok(opened)) => {
                shards.push(opened.recovery);
                io_kind = opened.io_kind;
                io_fallback = opened.io_fallback;
            }
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Err(_) => failed = failed.or(Some(Error::Closed)),
        }
        threads.push(thread);
    }
    let Some(error) = failed else { return Ok(Started { threads, mailboxes, shards, io_kind, io_fallback }) };
    // Those that did open are told to close; no one waits for their answers.
    mailboxes.iter().for_each(|mailbox| mailbox.end());
    threads.into_iter().for_each(Thread::join);
    Err(error)
}

/// A shard's configuration.
pub(crate) fn config_of(shard: u16, fixed: &Fixed, options: &Options) -> Result<Config> {
    let divisor = Divisor::new(fixed.divisor)
        .ok_or(Error::Options { option: "divisor", why: format!("{} is out of bounds", fixed.divisor) })?;
    Ok(Config {
        shard,
        fixed: fixed.clone(),
        divisor,
        budget: Budget { flush_bytes: fixed.flush_bytes, base_ratio: fixed.base_ratio },
        segments: SegmentOptions { compression: fixed.compression, ..SegmentOptions::default() },
        durability: options.durability,
        memtable_bytes: options.memtable_bytes / usize::from(fixed.shards),
        group_bytes: options.group_bytes,
        manifest_bytes: crate::manifest::FILE_BYTES_MIN,
    })
}

/// A shard's options of its log.
pub(crate) fn log_options_of(fixed: &Fixed, options: &Options) -> LogOptions {
    let file_bytes = fixed.log_file_bytes;
    let page = crate::limits::PAGE_BYTES;
    LogOptions {
        file_bytes,
        files_max: options.log_files_max,
        depth: options.log_depth,
        group_bytes_max: options.group_bytes.min(file_bytes as usize - page),
    }
}

/// When this thread's runtime last parked. It does not where something wakes its main future first, so that is asked of the runtime.
struct Parks {
    metrics: tokio::runtime::RuntimeMetrics,
    count: u64,
    at: u64,
}

impl Parks {
    fn new() -> Self {
        let metrics = tokio::runtime::Handle::current().metrics();
        Parks { count: metrics.worker_park_count(0), metrics, at: 0 }
    }

    /// Whether the last parking is so long ago.
    fn are_due(&mut self, now: u64, after: u64) -> bool {
        let count = self.metrics.worker_park_count(0);
        if count != self.count {
            (self.count, self.at) = (count, now);
        }
        now.saturating_sub(self.at) > after
    }
}

/// What a shard's thread begins with.
struct Setup {
    folder: std::path::PathBuf,
    config: Config,
    log: LogOptions,
    cache_bytes: usize,
    retention: Option<Retention>,
    io: IoChoice,
    core: Option<core_affinity::CoreId>,
    mailbox: Arc<Mailbox>,
    linger: Duration,
    _lock: Arc<identity::Lock>,
}

/// Closes a mailbox when a shard's thread ends, in whatever way.
struct CloseAtEnd(Arc<Mailbox>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a shard's thread reports once its shard is open.
struct Opened {
    recovery: ShardRecovery,
    io_kind: &'static str,
    io_fallback: Option<String>,
}

/// A shard's thread, from begin to end.
fn run(setup: Setup, opened: &mpsc::Sender<Result<Opened>>) {
    HOSTING.set(true);
    if let Some(core) = setup.core {
        // A core that is not to be had costs speed, not correctness.
        core_affinity::set_for_current(core);
    }
    let Setup { folder, config, log, cache_bytes, retention, io, mailbox, linger, .. } = setup;
    // However this ends, no client waits for an answer that cannot come.
    let _closing = CloseAtEnd(mailbox.clone());
    let shard = config.shard;
    let core = open_best(&folder, io).and_then(|(disk, io_fallback)| {
        let io = Io::new(disk);
        let opening = Core::open(io.clone(), config, log, cache_bytes, retention);
        let (core, recovery) = io.block_on(opening)?;
        Ok((core, Opened { recovery, io_kind: io.kind(), io_fallback }))
    });
    let (core, report) = match core {
        Ok(opened) => opened,
        Err(error) => {
            let _ = opened.send(Err(error.on_shard(shard)));
            return;
        }
    };
    // It has none yet.
    let _ = core.bells.set(mailbox.bells().clone());
    // If no one waits any more, the engine was given up, and a close is on its way.
    let report_to = opened.clone();
    let looped = host(&core, &mailbox, linger, move || drop(report_to.send(Ok(report))));
    mailbox.close();
    let io = core.io.clone();
    match looped {
        Ok(()) => io.block_on(core.finish()),
        // Without its runtime the shard does not open; once open, whoever waits is told that it is closed.
        Err(error) => drop(opened.send(Err(error))),
    }
    HOSTING.set(false);
}

/// Runs the shard's loop to its end.
/// Calls `ready` once all that the loop needs is there.
fn host(
    core: &Rc<Core>,
    mailbox: &Arc<Mailbox>,
    linger: Duration,
    ready: impl FnOnce() + 'static,
) -> Result<()> {
    let failed = |error| Error::io("start the runtime of", format!("shard {}", core.config.shard), error);
    let (main_core, main_mailbox) = (core.clone(), mailbox.clone());
    // tokio-uring's runtime panics where it has no ring of its own, so try first.
    let on_uring = core.has_ring && Uring::probe().is_ok();
    let result = if on_uring {
        let entries = 32;
        tokio_uring::builder().entries(entries).start(async move {
            let spawner: Spawner = Box::new(|task| drop(tokio::task::spawn_local(task)));
            drive(&main_core, &main_mailbox, linger, spawner, ready).await
        })
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let spawner: Spawner = Box::new(|task| drop(tokio::task::spawn_local(task)));
            drive(&main_core, &main_mailbox, linger, spawner, ready).await
        })
    };
    result.map_err(failed)
}

/// Uses up the readiness that is there; the next makes for another poll.
fn use_up(ready: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> std::io::Result<()> {
    while let Poll::Ready(guard) = ready.poll_read_ready(cx) {
        guard?.clear_ready();
    }
    Ok(())
}

/// The loop: one turn a poll, and another where looking has found news.
async fn drive(
    core: &Rc<Core>,
    mailbox: &Arc<Mailbox>,
    linger: Duration,
    spawner: Spawner,
    opened: impl FnOnce(),
) -> std::io::Result<()> {
    core.set_spawner(Some(spawner));
    let ready = match core.io.event_fd() {
        // SAFETY: the descriptor is owned by the `AsyncFd`, so it stays open, and its own, while registered.
        Some(fd) => Some(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?),
        None => None,
    };
    opened();
    let spent = Spent::default();
    let mut lookout = Lookout::default();
    let mut parks = Parks::new();
    // Where it is due, it parks for an instant: an earlier signal is used up, and what is written then ends the parking. Until the
    // next poll, which that makes certain, no wake of this thread's own may keep the runtime from parking.
    let stay_awake = |cx: &mut Context<'_>, due: bool| {
        if due && let Some(ready) = &ready {
            use_up(ready, cx)?;
            core.set_driver(Waker::noop());
            if rustix::io::write(ready.get_ref(), &1u64.to_ne_bytes()).is_ok() {
                return Poll::Pending;
            }
            core.set_driver(cx.waker());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    };
    let turn = || core.turn_with(mailbox, &spent);
    let give_way = || {
        if core.log_is_late() {
            std::thread::sleep(GIVE_WAY);
        } else if core.io.in_flight() > 0 {
            // Durable writes are completed by kernel threads of this core. A kernel that preempts only now
            // and then would let them wait for the rest of this thread's slice.
            std::thread::yield_now();
        }
    };
    let mut alarm: Option<(u64, Pin<Box<tokio::time::Sleep>>)> = None;
    let result = poll_fn(|cx| {
        mailbox.awake();
        // What wakes within this poll and is to be done is done in this or the next turn, which parking does not put off.
        let due = ready.is_some() && parks.are_due(core.now(), PARK_AFTER_NANOS);
        core.set_driver(if due { Waker::noop() } else { cx.waker() });
        let until = match turn() {
            Turn::Closed => return Poll::Ready(Ok(())),
            Turn::Busy => {
                lookout.found();
                give_way();
                return stay_awake(cx, due);
            }
            Turn::Idle(until) => until,
        };
        core.set_driver(cx.waker());
        let patience = core.patience();
        // With many on other threads that wait for a log write, the core's time is worth more than theirs. Nor does it look where the
        // clock ends that.
        let looks = (patience == 1 || core.is_waited_for_here())
            && until.is_none_or(|at| at > core.now() + linger.as_nanos() as u64);
        if looks {
            let awaited = if core.io.in_flight() > 0 { Awaited::Disk } else { Awaited::Mail };
            let news = || mailbox.has_news() || (awaited == Awaited::Disk && core.pump());
            match lookout.look(awaited, linger, core.has_tasks(), news) {
                Stay::Looking => {
                    let due = core.has_tasks() && parks.are_due(core.now(), PARK_AFTER_IDLE_NANOS);
                    return stay_awake(cx, due);
                }
                Stay::News => {
                    // At once: who waits for it has its turn sooner.
                    if turn() == Turn::Closed {
                        return Poll::Ready(Ok(()));
                    }
                    give_way();
                    return stay_awake(cx, due);
                }
                Stay::Sleep => {}
            }
        }
        lookout.give_up();
        if !mailbox.prepare_to_sleep(cx.waker(), patience) {
            return stay_awake(cx, false);
        }
        if let Some(ready) = &ready {
            // Readiness is used up here; if it was there, look for completions once more.
            use_up(ready, cx)?;
            if core.pump() {
                return stay_awake(cx, false);
            }
        }
        match until {
            None => alarm = None,
            Some(at) => {
                if alarm.as_ref().is_none_or(|(set, _)| *set != at) {
                    let wait = Duration::from_nanos(at.saturating_sub(core.io.now()));
                    alarm = Some((at, Box::pin(tokio::time::sleep(wait))));
                }
                if let Some((_, sleep)) = &mut alarm
                    && sleep.as_mut().poll(cx).is_ready()
                {
                    alarm = None;
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Pending
    })
    .await;
    core.set_spawner(None);
    result
}
