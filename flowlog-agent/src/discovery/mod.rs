//! Which network devices there are, and every change of them.
//!
//! [`Discovery`] tells of the devices of the host's network namespace (the one the agent was started in) and of named
//! namespaces (files as `ip netns` makes them, in `/run/netns`). A device is known by its namespace and index: a rename is
//! a change of the same device, while one deleted and made again under the same name is another device. What has been told
//! and what the kernel says agree after every loss: see `links` for how.
//!
//! | file | what it does |
//! |---|---|
//! | `device` | what is known of a device, and the events |
//! | `counters` | a namespace's second netlink socket: what its devices have counted, when asked |
//! | `decode` | link messages of rtnetlink → devices |
//! | `table` | one namespace's devices; turns messages and dumps into events, each told once |
//! | `links` | one namespace's netlink socket: subscription, dumps, recovery from overruns |
//! | `namespace` | identity of namespaces, entering them |
//! | `folder` | watches the folder of named namespaces |
//! | `watcher` | [`Discovery`] itself |

mod counters;
mod decode;
mod device;
mod folder;
mod links;
mod namespace;
mod table;
mod watcher;

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;

pub use device::{Device, DeviceCounters, DeviceEvent, DeviceKey, XdpAttachment, XdpMode};
pub use namespace::{HeldNamespace, NamespaceId, NamespaceRef, in_namespace};
pub use watcher::{Discovery, DiscoveryError, Listing, Settings, list_devices};
