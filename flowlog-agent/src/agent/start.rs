//! Going on where the agent before this one stopped: at its end, killed, or with the host.
//!
//! | what there was | what becomes of it |
//! |---|---|
//! | counters in the kernel, of the same boot | taken over; what was flipped and is not in the spool is drained again |
//! | open windows, of the same boot | go on |
//! | open windows, of an earlier boot | are closed with what the spool has of them; what was in the kernel is lost, and they say so |
//! | counters that are gone, or cannot be taken over | what the interfaces counted meanwhile is SKIPDATA |
//! | windows that are not delivered | are delivered |
use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use flowlog_common::Volume;
use flowlog_model::{inventory::Inventory, record::Eni};
use tokio::sync::mpsc;

use super::{
    Agent, AgentError, RunOptions, Signals, deliver, managed,
    saved::Saved,
    windows::{ToClose, Why},
};
use crate::{
    adoption::{self, Adopted},
    bpf::{Wake, pins::Pins},
    capture::{Capture, LeftOn},
    clock::{self, Alarm, Clock},
    config::{self, Config},
    discovery::{Discovery, Settings},
    drain::Drainer,
    failpoint,
    kernel::{Kernel, KernelSizes},
    ledger::{Cause, DeviceId, Ledger},
    metrics::{self, Metrics},
    output, privileges,
    sizing::Sizing,
    slots::{CapturedEnis, EniInSlot, Slots},
    spool::{KernelMark, OpenSeries, Recovered, Spool, SpoolConfig, StoredEni},
    status,
    watch::FileWatch,
    window::{Now, Schedule, Window},
    windows::{Closed, Windows},
};

/// What the agent before this one has left in the spool.
struct Previous {
    saved: Saved,
    /// Whether it was in this boot of the kernel.
    same_boot: bool,
    series: Vec<OpenSeries>,
    enis: Vec<StoredEni>,
    mark: Option<KernelMark>,
    ledger: Ledger,
}

impl Previous {
    fn new(recovered: Recovered, boot_id: &str) -> Self {
        let Recovered {
            mark,
            extras,
            state,
            damage,
        } = recovered;
        for sentence in &damage.sentences {
            tracing::error!("{sentence}");
        }
        let mut state = state.unwrap_or_default();
        let mut saved: Saved = serde_json::from_value(state.ledger).unwrap_or_default();
        for series in &mut state.series {
            let of_length = saved.flow_logs.remove(&series.length_seconds);
            series.flow_logs.extend(of_length.unwrap_or_default());
        }
        let ledger: Ledger = serde_json::from_value(extras).unwrap_or_default();
        Self {
            // Without a state, the counters of the newest drain tell.
            same_boot: saved.boot_id == boot_id
                || (saved.boot_id.is_empty()
                    && mark
                        .as_ref()
                        .is_some_and(|mark| mark.epoch.starts_with(boot_id))),
            series: state.series,
            enis: state.enis,
            mark,
            ledger: saved.ledger.clone().newer(ledger),
            saved,
        }
    }

    /// Whether counters that may have held something are none of those that there are.
    fn has_lost<'e>(&self, mut epochs: impl Iterator<Item = &'e str>) -> bool {
        let saved = self.saved.epoch.as_deref();
        saved.is_some_and(|saved| epochs.all(|epoch| epoch != saved))
    }

    /// The slots, as the spool and the kernel know them.
    fn slots(&self, kernel: Vec<(u32, Eni)>) -> Slots {
        let mut slots: BTreeMap<u32, (Eni, Option<Duration>)> = BTreeMap::new();
        if self.same_boot {
            slots.extend(self.enis.iter().map(|stored| {
                let gone_at = stored.gone_at_ns.map(Duration::from_nanos);
                (stored.slot, (stored.eni.clone(), gone_at))
            }));
        }
        for (slot, eni) in kernel {
            if slots.get(&slot).is_none_or(|(known, _)| *known != eni) {
                slots.insert(slot, (eni, None));
            }
        }
        Slots::restored(
            slots
                .into_iter()
                .map(|(slot, (eni, gone_at))| (slot, eni, gone_at)),
        )
    }

    /// Into which slots the programs count that the agent before has left on devices, as far as it is known.
    fn left_on(&self, slots: &Slots, epoch: &str) -> LeftOn {
        // What counts into other counters than those that there are is of no use.
        if !self.same_boot || self.has_lost(std::iter::once(epoch)) {
            return LeftOn::new();
        }
        let of_device = |(eni_id, device): (&str, DeviceId)| {
            Some(((device.namespace, device.index), slots.left_of(eni_id)?))
        };
        self.ledger.devices().filter_map(of_device).collect()
    }

    /// The windows that were open in an earlier boot, closed.
    fn windows_of_earlier_boot(&self, now: Now) -> VecDeque<ToClose> {
        if self.same_boot {
            return VecDeque::new();
        }
        let mut captured = CapturedEnis::default();
        for StoredEni {
            slot,
            eni,
            gone_at_ns,
        } in &self.enis
        {
            let slot = *slot as usize;
            if captured.by_slot.len() <= slot {
                captured.by_slot.resize(slot + 1, None);
            }
            if let Some(entry) = captured.by_slot.get_mut(slot) {
                *entry = Some(EniInSlot {
                    eni: Arc::new(eni.clone()),
                    gone_at: gone_at_ns.map(Duration::from_nanos),
                });
            }
        }
        let shortest = self.series.iter().map(|series| series.length_seconds).min();
        let close = |series: &OpenSeries| ToClose {
            window: Closed {
                length_seconds: series.length_seconds,
                label: label_of_earlier_boot(series, now),
                opened: Duration::from_nanos(series.opened_ns),
                first_drain: series.first_drain,
                flow_logs: series.flow_logs.clone(),
                is_shortest: shortest == Some(series.length_seconds),
            },
            captured: captured.clone(),
            closed: Duration::from_nanos(series.opened_ns),
            loss_unknown: self.saved.epoch.is_some(),
        };
        self.series.iter().map(close).collect()
    }
}

/// When the host went down is not known: at the latest at the window's end, or now.
fn label_of_earlier_boot(series: &OpenSeries, now: Now) -> Window {
    let schedule = Schedule::restored(series.length_seconds, series.start, now.boot, now);
    let Window { start, end } = schedule.open();
    let end = end.min(now.wall.as_secs()).max(start.saturating_add(1));
    Window { start, end }
}

impl Agent {
    pub(super) async fn start(
        config_path: &Path,
        config: Config,
        inventory: Inventory,
        (pin_folder, left): (&Path, Pins),
        options: &RunOptions,
    ) -> Result<Self, AgentError> {
        let system = |what| move |source| AgentError::System { what, source };
        let signals = Signals::new().map_err(system("handle signals"))?;
        let clock = Clock::new().map_err(system("read the clock"))?;
        let boot_id = clock::boot_id().map_err(system("read the id of this boot"))?;
        let boot_id = failpoint::boot_id(boot_id);
        let now = clock.now();
        let (spool, recovered) = Spool::open(spool_config(&config.spool))?;
        let previous = Previous::new(recovered, &boot_id);
        let settings = settings(&inventory);
        let (drainer, capture) =
            take_over((pin_folder, left), &config, inventory, &settings, &previous)?;
        let adopted = adoption::adopt(&config.pin_path, pin_folder, previous.mark.as_ref())?;
        let scrapes = match config.metrics.listen {
            Some(listen) => Some(
                metrics::serve(listen)
                    .await
                    .map_err(|source| AgentError::Metrics { listen, source })?,
            ),
            None => None,
        };
        let status_requests = match &config.status_socket {
            Some(path) => Some(status::serve(path)?),
            None => None,
        };
        privileges::keep_only(&privileges::needed(!settings.namespaces.is_empty()))?;
        let (sink_sender, sink_events) = mpsc::unbounded_channel();
        let managed::Beginning {
            management,
            flow_logs,
            ending,
        } = managed::start(&config, &spool, clock)?;
        let outputs = output::outputs(&flow_logs, &options.output);
        let to_close = previous.windows_of_earlier_boot(now);
        let windows = if previous.same_boot && !previous.series.is_empty() {
            Windows::restored(&previous.series, previous.saved.labelled_until, now)
        } else {
            let ends = to_close.iter().map(|closed| closed.window.label.end);
            let labelled_until = ends.max().unwrap_or(0).max(previous.saved.labelled_until);
            Windows::new(&outputs, labelled_until, now, spool.next_drain())
        };
        let mut agent = Self {
            inventory_watch: FileWatch::new(&config.inventory)
                .map_err(system("watch the inventory"))?,
            config_path: config_path.to_owned(),
            wake: Wake::open(pin_folder)?,
            discovery: Discovery::start(settings)?,
            sinks: deliver::sinks(&spool, &sink_sender, clock),
            alarm: Alarm::new().map_err(system("make an alarm"))?,
            options: options.clone(),
            windows_left: options.windows,
            adopted,
            found_pins: left == Pins::Left,
            leftovers_looked_for: false,
            metrics: Metrics::new(),
            ledger: Ledger::default(),
            started: now.boot,
            closed_unsaved: 0,
            given: BTreeMap::new(),
            state_is_saved: false,
            spool_retry: None,
            compaction: None,
            packets_without_session: 0,
            unmatched_drops: 0,
            sweep_at: now.boot,
            swept_at: now.boot,
            sink_health: BTreeMap::new(),
            windows_committed: 0,
            last_closed: None,
            last_error: None,
            boot_id,
            spool,
            config,
            outputs,
            ending: output::outputs(&ending, &options.output),
            management,
            clock,
            capture,
            drainer,
            windows,
            to_close,
            sink_sender,
            sink_events,
            scrapes,
            status_requests,
            signals,
        };
        agent.go_on(previous, left)?;
        Ok(agent)
    }

    fn go_on(&mut self, previous: Previous, left: Pins) -> Result<(), AgentError> {
        let epochs = std::iter::once(self.drainer.epoch());
        let has_lost = previous.has_lost(epochs.chain(self.adopted.iter().map(Adopted::epoch)));
        let Previous {
            same_boot,
            enis,
            ledger,
            ..
        } = previous;
        self.ledger = ledger;
        if has_lost && !same_boot {
            let windows = self.to_close.len() as u64;
            self.ledger
                .lose(Cause::PowerLoss, Volume::default(), windows);
        }
        if has_lost {
            tracing::error!(
                "the counters of the agent that ran before are gone, {}",
                if same_boot {
                    "and with them what they held: what the interfaces have counted meanwhile becomes SKIPDATA"
                } else {
                    "for the host was booted anew: the windows that were open end with SKIPDATA"
                }
            );
        }
        if has_lost && same_boot {
            let captured = enis.into_iter().filter(|eni| eni.gone_at_ns.is_none());
            self.ledger
                .lose_counters(captured.map(|stored| stored.eni.eni_id));
        } else if !same_boot
            || (left == Pins::New && !self.adopted.iter().any(Adopted::is_in_ledger))
        {
            self.ledger.released_all();
        }
        // Also where nothing was left, so that the spool has a state before anything is counted.
        self.try_save_state_first()?;
        if left == Pins::Left {
            // A flow map may be half full already, and its wake-up was for the agent that is gone.
            self.drain(Why::Early)?;
        }
        if !self.windows.suit(&self.outputs, self.others_stay()) {
            self.close_windows_of(&self.windows.unwanted(&self.outputs, self.others_stay()))?;
            self.open_windows();
        }
        // Those that the agent before has left open are not among the ones that were asked for.
        self.windows_left = self.options.windows;
        self.deliver_pending();
        Ok(())
    }

    /// Stores what is to be closed and the state. Here a spool that takes nothing is an error, for it can be mended before anything is
    /// captured.
    fn try_save_state_first(&mut self) -> Result<(), AgentError> {
        self.store_closed_windows()?;
        // They are among those that are pending.
        self.try_save_state()?;
        Ok(())
    }
}

fn settings(inventory: &Inventory) -> Settings {
    let namespaces = inventory.namespaces().into_iter().map(str::to_owned);
    Settings {
        namespaces: namespaces.collect(),
        ..Settings::default()
    }
}

fn spool_config(config: &config::SpoolConfig) -> SpoolConfig {
    SpoolConfig {
        path: config.path.clone(),
        max_bytes: config.max_size_bytes,
        max_age_seconds: config.max_age.as_secs(),
        max_flows_in_memory: config.max_flows_in_memory as usize,
    }
}

/// Makes what is in the kernel besides the programs, or takes it over.
fn take_over(
    (pin_folder, left): (&Path, Pins),
    config: &Config,
    inventory: Inventory,
    settings: &Settings,
    previous: &Previous,
) -> Result<(Drainer, Capture), AgentError> {
    let capture = &config.capture;
    let sizing = Sizing::new(capture.flow_map_min_entries, capture.flow_map_max_entries);
    let sizes = KernelSizes {
        flow_maps: sizing.sizes(),
        ring_bytes: capture.overflow_ring_kib.saturating_mul(1024),
        max_sessions: config.security.max_sessions,
    };
    let Kernel {
        counters,
        ring,
        identities,
        security,
        slots,
    } = match left {
        Pins::Left => Kernel::take_over(pin_folder, sizes)?,
        Pins::New => Kernel::create(pin_folder, sizes)?,
    };
    let drainer = Drainer::new(counters, ring, sizing, previous.mark.as_ref())?;
    let slots = previous.slots(slots);
    let left_on = previous.left_on(&slots, drainer.epoch());
    let capture = Capture::new(
        (pin_folder.to_owned(), settings.namespace_folder.clone()),
        config,
        inventory,
        (slots, identities, security),
        left_on,
    );
    Ok((drainer, capture))
}
