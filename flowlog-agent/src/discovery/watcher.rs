//! [`Discovery`]: the devices of the host's namespace and of named ones.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use super::decode::Place;
use super::device::{Device, DeviceCounters, DeviceEvent, DeviceKey};
use super::folder::{FolderChange, FolderWatch};
use super::links::{DATAGRAM_BYTES, LinkWatch, Sockets};
use super::namespace::{NamespaceId, OpenError, OpenNamespace};

/// How long to wait before a namespace that could not be watched is tried again: the first time, and at most. Between
/// making a namespace's file and mounting the namespace on it, `ip netns add` needs well below a millisecond.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// After how many attempts (together one second) a file on which no namespace is mounted is called unavailable.
const PATIENT_ATTEMPTS: u32 = 10;

/// What to discover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of named namespaces; `ip netns` has `/run/netns`. It need not exist.
    pub namespace_folder: PathBuf,
    /// The names of the namespaces wanted besides the host's. They need not exist.
    pub namespaces: BTreeSet<String>,
    /// The receive buffer of each namespace's netlink socket, in bytes (the kernel doubles it). It is a limit, not used up
    /// while idle. Beyond it changes are lost, which is noticed and made good.
    pub receive_buffer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace_folder: PathBuf::from("/run/netns"),
            namespaces: BTreeSet::new(),
            receive_buffer_bytes: 1 << 20,
        }
    }
}

/// Why discovery could not start.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// Called outside an async runtime.
    #[error("device discovery needs an async runtime with I/O and time enabled: {0}")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// The host's own namespace could not be watched.
    #[error("the network devices of the host cannot be watched by netlink: {0}")]
    Host(#[source] io::Error),
    /// The folder of named namespaces could not be watched.
    #[error(
        "the folder {folder} of network namespaces cannot be watched by inotify \
         (is fs.inotify.max_user_instances too low?): {source}"
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Tells of every network device in the host's namespace and in the wanted named ones, and of every change.
#[derive(Debug)]
pub struct Discovery {
    folder: PathBuf,
    receive_buffer_bytes: usize,
    host: LinkWatch,
    /// Every wanted namespace.
    named: BTreeMap<String, Named>,
    folder_watch: FolderWatch,
    /// Wanted namespaces whose files are to be looked at.
    to_look_at: BTreeSet<String>,
    /// Events not yet told: at most those of one datagram, of one dump, or of one call of `set_namespaces`.
    pending: VecDeque<DeviceEvent>,
    buffer: Vec<u8>,
}

/// A wanted namespace.
#[derive(Debug)]
enum Named {
    Watched(Box<LinkWatch>),
    Waiting(Waiting),
}

#[derive(Debug, Default)]
struct Waiting {
    /// None while there is no file of the name: its arrival is awaited instead.
    retry: Option<Pin<Box<Sleep>>>,
    attempts: u32,
    /// Whether the last attempt found a file on which a namespace may be mounted at any moment.
    being_made: bool,
    /// What was last told.
    reason: Option<String>,
}

impl Discovery {
    /// Starts to follow the devices. The host's namespace is that of the calling thread. Devices that are there already are
    /// told as [`DeviceEvent::Appeared`], and wanted namespaces that are not as [`DeviceEvent::NamespaceUnavailable`].
    ///
    /// # Errors
    /// See [`DiscoveryError`]. A wanted namespace is never the cause.
    pub fn start(settings: Settings) -> Result<Self, DiscoveryError> {
        Handle::try_current()?;
        let Settings {
            namespace_folder: folder,
            namespaces,
            receive_buffer_bytes,
        } = settings;
        let folder_watch = std::path::absolute(&folder).and_then(FolderWatch::new);
        let folder_watch = folder_watch.map_err(|source| DiscoveryError::Folder {
            folder: folder.clone(),
            source,
        })?;
        let host = NamespaceId::of_this_thread().and_then(|namespace| {
            LinkWatch::new(
                Sockets::open(receive_buffer_bytes)?,
                Place {
                    namespace,
                    name: None,
                },
            )
        });
        let mut discovery = Self {
            folder,
            receive_buffer_bytes,
            host: host.map_err(DiscoveryError::Host)?,
            named: BTreeMap::new(),
            folder_watch,
            to_look_at: BTreeSet::new(),
            pending: VecDeque::new(),
            buffer: vec![0; DATAGRAM_BYTES],
        };
        discovery.set_namespaces(namespaces);
        Ok(discovery)
    }

    /// Which named namespaces are wanted from now on. Devices of those no longer wanted vanish; namespaces already watched
    /// are not disturbed. The effects are told by [`Self::next`].
    pub fn set_namespaces(&mut self, wanted: BTreeSet<String>) {
        let unwanted: Vec<String> = self
            .named
            .keys()
            .filter(|name| !wanted.contains(*name))
            .cloned()
            .collect();
        for name in unwanted {
            self.to_look_at.remove(&name);
            if let Some(Named::Watched(watch)) = self.named.remove(&name) {
                watch.close(&mut self.buffer, &mut self.pending);
            }
        }
        for name in wanted {
            if let Entry::Vacant(entry) = self.named.entry(name) {
                self.to_look_at.insert(entry.key().clone());
                entry.insert(Named::Waiting(Waiting::default()));
            }
        }
    }

    /// The next event. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> DeviceEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The devices known now, the host's first. Events of theirs may still be waiting to be told.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.host
            .devices()
            .chain(self.watches().flat_map(|(_, watch)| watch.devices()))
    }

    /// What devices have counted until now. Those that are gone, or whose namespace is not watched, are left out.
    ///
    /// This asks the kernel, device by device, and returns when it has answered: some ten microseconds for each, and longer only while
    /// somebody else changes the network configuration, which the kernel does under the same lock.
    pub fn counters(
        &mut self,
        keys: impl IntoIterator<Item = DeviceKey>,
    ) -> HashMap<DeviceKey, DeviceCounters> {
        let Self {
            host,
            named,
            buffer,
            ..
        } = self;
        let mut watches: HashMap<NamespaceId, &mut LinkWatch> =
            HashMap::from([(host.place().namespace, host)]);
        watches.extend(named.values_mut().filter_map(|named| match named {
            Named::Watched(watch) => Some((watch.place().namespace, &mut **watch)),
            Named::Waiting(_) => None,
        }));
        let counters = |key: DeviceKey| {
            let watch = watches.get_mut(&key.namespace)?;
            Some((key, watch.counters(key.index, buffer)?))
        };
        keys.into_iter().filter_map(counters).collect()
    }

    /// Whether every device that was there at the start has been told of, as far as its namespace can be watched.
    #[must_use]
    pub fn has_told_all(&self) -> bool {
        let named = |named: &Named| match named {
            Named::Watched(watch) => watch.complete_dumps() > 0,
            Named::Waiting(waiting) => waiting.reason.is_some(),
        };
        self.pending.is_empty()
            && self.to_look_at.is_empty()
            && self.host.complete_dumps() > 0
            && self.named.values().all(named)
    }

    /// How often the devices of a namespace had to be read anew because messages were lost.
    #[must_use]
    pub fn recoveries(&self) -> u64 {
        let watches = std::iter::once(&self.host).chain(self.watches().map(|(_, watch)| watch));
        watches
            .map(|watch| watch.complete_dumps().saturating_sub(1))
            .sum()
    }

    fn watches(&self) -> impl Iterator<Item = (&str, &LinkWatch)> {
        self.named.iter().filter_map(|(name, named)| match named {
            Named::Watched(watch) => Some((name.as_str(), &**watch)),
            Named::Waiting(_) => None,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<DeviceEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Poll::Ready(event);
            }
            if self.poll_sources(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Polls everything that events come from. Ready if anything has happened, whether or not there is something to tell.
    fn poll_sources(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut progress = false;
        while let Poll::Ready(change) = self.folder_watch.poll(cx) {
            progress = true;
            let wanted = self.named.keys();
            match change {
                FolderChange::Everything => self.to_look_at.extend(wanted.cloned()),
                FolderChange::Names(names) => self
                    .to_look_at
                    .extend(wanted.filter(|name| names.contains(*name)).cloned()),
            }
        }
        while let Some(name) = self.to_look_at.pop_first() {
            progress = true;
            if let Some(Named::Waiting(waiting)) = self.named.get_mut(&name) {
                // Something is new, so patience starts anew.
                waiting.attempts = 0;
            }
            self.look_at(&name);
        }
        for name in self.due_for_retry(cx) {
            progress = true;
            self.look_at(&name);
        }
        progress |= self
            .host
            .poll(cx, &mut self.buffer, &mut self.pending)
            .is_ready();
        for named in self.named.values_mut() {
            if let Named::Watched(watch) = named {
                progress |= watch
                    .poll(cx, &mut self.buffer, &mut self.pending)
                    .is_ready();
            }
        }
        if progress {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn due_for_retry(&mut self, cx: &mut Context<'_>) -> Vec<String> {
        let mut due = Vec::new();
        for (name, named) in &mut self.named {
            if let Named::Waiting(waiting) = named
                && let Some(retry) = &mut waiting.retry
                && retry.as_mut().poll(cx).is_ready()
            {
                waiting.retry = None;
                due.push(name.clone());
            }
        }
        due
    }

    /// Finds out what a wanted namespace's name stands for now, and begins or ends its watch accordingly.
    fn look_at(&mut self, name: &str) {
        let found =
            namespace_path(&self.folder, name).and_then(|path| Ok(OpenNamespace::open(&path)?));
        match (self.named.get(name), &found) {
            (None, _) => return,
            (Some(Named::Watched(watch)), Ok(open)) if watch.place().namespace == open.id => return,
            (Some(Named::Watched(_)), _) => self.namespace_gone(name),
            (Some(Named::Waiting(_)), _) => {}
        }
        match found.and_then(|open| self.watch(name, &open)) {
            Ok(watch) => {
                self.named
                    .insert(name.to_owned(), Named::Watched(Box::new(watch)));
            }
            Err(why) => self.unavailable(name, &why),
        }
    }

    /// Ends the watch of a namespace whose name has gone. That it is absent needs no telling after that.
    fn namespace_gone(&mut self, name: &str) {
        let reason = Some(OpenError::Absent.to_string());
        let waiting = Named::Waiting(Waiting {
            reason,
            ..Waiting::default()
        });
        if let Some(Named::Watched(watch)) = self.named.insert(name.to_owned(), waiting) {
            watch.close(&mut self.buffer, &mut self.pending);
            self.pending.push_back(DeviceEvent::NamespaceGone {
                name: name.to_owned(),
            });
        }
    }

    fn watch(&self, name: &str, open: &OpenNamespace) -> Result<LinkWatch, Unavailable> {
        let namespace = open.id;
        if namespace == self.host.place().namespace {
            return Err(Unavailable::Host);
        }
        if let Some((other, _)) = self
            .watches()
            .find(|(_, watch)| watch.place().namespace == namespace)
        {
            return Err(Unavailable::Twice {
                other: other.to_owned(),
            });
        }
        let sockets = open
            .enter(|| Sockets::open(self.receive_buffer_bytes))
            .map_err(Unavailable::Enter)?;
        let place = Place {
            namespace,
            name: Some(name.to_owned()),
        };
        sockets
            .and_then(|sockets| LinkWatch::new(sockets, place))
            .map_err(Unavailable::Socket)
    }

    /// Notes that a namespace cannot be watched now, tells of it if that is news, and sees to another attempt.
    fn unavailable(&mut self, name: &str, why: &Unavailable) {
        let Some(Named::Waiting(waiting)) = self.named.get_mut(name) else {
            return;
        };
        waiting.being_made = match why {
            Unavailable::File(OpenError::NotNamespace) => true,
            // `ip netns add` makes the file with no permissions at all; without CAP_DAC_OVERRIDE that keeps root out too.
            Unavailable::File(OpenError::Failed(error)) => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        };
        let arrival_awaited = matches!(
            why,
            Unavailable::File(OpenError::Absent) | Unavailable::Name
        );
        waiting.retry = (!arrival_awaited).then(|| {
            let delay =
                RETRY_FIRST.saturating_mul(1_u32.checked_shl(waiting.attempts).unwrap_or(u32::MAX));
            Box::pin(sleep(delay.min(RETRY_LONGEST)))
        });
        waiting.attempts = (waiting.attempts + 1).min(16);
        let reason = why.to_string();
        let patient = waiting.being_made && waiting.attempts <= PATIENT_ATTEMPTS;
        if !patient && waiting.reason.as_ref() != Some(&reason) {
            waiting.reason = Some(reason.clone());
            self.pending.push_back(DeviceEvent::NamespaceUnavailable {
                name: name.to_owned(),
                reason,
            });
        }
    }

    /// Waits until every namespace has been read completely, or found unavailable.
    async fn settle(&mut self) {
        poll_fn(|cx| {
            while self.poll_sources(cx).is_ready() {}
            let settled = |named: &Named| match named {
                Named::Watched(watch) => watch.complete_dumps() > 0,
                Named::Waiting(waiting) => waiting.reason.is_some(),
            };
            let settled = self.host.complete_dumps() > 0 && self.named.values().all(settled);
            if settled {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Why a wanted namespace cannot be watched.
#[derive(Debug, Error)]
enum Unavailable {
    #[error(
        "a namespace's name is a single file name, without \"/\", and neither \".\" nor \"..\""
    )]
    Name,
    #[error(transparent)]
    File(#[from] OpenError),
    #[error("it is the host's own network namespace, whose devices are known already")]
    Host,
    #[error("it is the same network namespace as {other:?}, whose devices are known already")]
    Twice { other: String },
    #[error("it cannot be entered: {0}{advice}", advice = advice(.0))]
    Enter(#[source] io::Error),
    #[error("its devices cannot be watched by netlink: {0}")]
    Socket(#[source] io::Error),
}

/// An agent that starts without a wanted namespace has given up the privilege to enter one.
fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; an agent keeps the privilege for it (CAP_SYS_ADMIN) only if its inventory names a namespace at the start, so restart it"
    } else {
        ""
    }
}

fn namespace_path(folder: &Path, name: &str) -> Result<PathBuf, Unavailable> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name && !name.contains('\0') => {
            Ok(folder.join(name))
        }
        _ => Err(Unavailable::Name),
    }
}

/// The devices at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The host's devices by index, and then those of each wanted namespace.
    pub devices: Vec<Device>,
    /// The wanted namespaces that could not be read, each with the reason.
    pub unavailable: BTreeMap<String, String>,
}

/// Lists the devices once. A namespace whose file has only just been made is waited for, about a second.
///
/// # Errors
/// See [`DiscoveryError`].
pub async fn list_devices(settings: Settings) -> Result<Listing, DiscoveryError> {
    let mut discovery = Discovery::start(settings)?;
    discovery.settle().await;
    let devices = discovery.devices().cloned().collect();
    let reason = |named| match named {
        Named::Waiting(Waiting { reason, .. }) => reason,
        Named::Watched(_) => None,
    };
    let unavailable = discovery
        .named
        .into_iter()
        .filter_map(|(name, named)| Some((name, reason(named)?)))
        .collect();
    Ok(Listing {
        devices,
        unavailable,
    })
}
