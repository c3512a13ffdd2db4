//! The inventory as it is in the file, and what is checked of it.
use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{
    DeviceMatch, EniEntry, Hook, Inventory, MAX_DEVICE_NAME_BYTES, MAX_ENTRIES, MAX_REMOTE_ENIS,
    Side,
};
use crate::input::{Document, InputError, Table};
use crate::record::Eni;
use crate::security_group::{
    self, Address, Attachment, RawAttachment, RawGroup, RawPrefixList, SecurityGroups,
    SecurityMode, Use,
};
use crate::text::Id;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawInventory {
    #[serde(default)]
    eni: Vec<Spanned<Table<RawEni>>>,
    #[serde(default)]
    remote_eni: Vec<Spanned<Table<RawRemoteEni>>>,
    #[serde(default)]
    security_group: Vec<Spanned<Table<RawGroup>>>,
    #[serde(default)]
    prefix_list: Vec<Spanned<Table<RawPrefixList>>>,
}

/// Reads an inventory.
///
/// # Errors
/// [`InputError`] for something that is not allowed.
pub(super) fn parse(document: &Document<'_>) -> Result<Inventory, InputError> {
    let RawInventory {
        eni,
        remote_eni,
        security_group,
        prefix_list,
    } = document.parse()?;
    if let Some(entry) = eni.get(MAX_ENTRIES) {
        return Err(document.refuse(
            &entry.span(),
            format_args!("allowed are {MAX_ENTRIES} entries in all"),
        ));
    }
    let mut reader = Reader {
        security_groups: security_group::read(document, security_group, prefix_list)?,
        document,
        lines: HashMap::with_capacity(eni.len()),
        uses: Vec::new(),
    };
    let entries = reader.entries(eni)?;
    let remote = reader.remote(remote_eni)?;
    let members = entries.iter().map(|entry| &entry.security).chain(&remote);
    let security_groups = reader.security_groups.with_members(members);
    Use::check(document, &security_groups, reader.uses)?;
    Ok(Inventory {
        entries,
        security_groups,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawEni {
    eni_id: Spanned<Id>,
    vswitch_id: Id,
    vm_id: Option<Id>,
    vpc_id: Id,
    account_id: Id,
    region: Option<Id>,
    r#match: Spanned<Table<DeviceMatch>>,
    #[serde(default)]
    side: Side,
    #[serde(default)]
    hook: Hook,
    netfilter: Option<bool>,
    security_mode: Option<Spanned<SecurityMode>>,
    security_group_ids: Option<Spanned<Vec<Spanned<Id>>>>,
    #[serde(default)]
    private_ip_addresses: Vec<Spanned<Address>>,
    #[serde(default)]
    ipv6_addresses: Vec<Spanned<Address>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRemoteEni {
    eni_id: Spanned<Id>,
    security_group_ids: Option<Spanned<Vec<Spanned<Id>>>>,
    #[serde(default)]
    private_ip_addresses: Vec<Spanned<Address>>,
    #[serde(default)]
    ipv6_addresses: Vec<Spanned<Address>>,
}

/// What is known while the entries are read.
struct Reader<'d> {
    document: &'d Document<'d>,
    /// Line of each eni-id so far.
    lines: HashMap<String, usize>,
    security_groups: SecurityGroups,
    /// The sets of groups that ENIs are in.
    uses: Vec<Use>,
}

impl Reader<'_> {
    fn entries(&mut self, raw: Vec<Spanned<Table<RawEni>>>) -> Result<Vec<EniEntry>, InputError> {
        let mut entries = Vec::with_capacity(raw.len());
        for raw in raw {
            let line = self.document.line(&raw.span());
            let Table(raw) = raw.into_inner();
            let id_span = raw.eni_id.span();
            let entry = self.entry(raw, line)?;
            self.only_once(&entry.eni.eni_id, &id_span)?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// ENIs of other hosts that are members of groups.
    fn remote(
        &mut self,
        raw: Vec<Spanned<Table<RawRemoteEni>>>,
    ) -> Result<Vec<Attachment>, InputError> {
        if let Some(entry) = raw.get(MAX_REMOTE_ENIS) {
            let clause = format_args!("allowed are {MAX_REMOTE_ENIS} entries in all");
            return Err(self.document.refuse(&entry.span(), clause));
        }
        let mut remote = Vec::with_capacity(raw.len());
        for raw in raw {
            let Table(RawRemoteEni {
                eni_id,
                security_group_ids,
                private_ip_addresses,
                ipv6_addresses,
            }) = raw.into_inner();
            self.only_once(eni_id.get_ref().as_str(), &eni_id.span())?;
            let raw = RawAttachment {
                security_mode: None,
                security_group_ids,
                private_ip_addresses,
                ipv6_addresses,
            };
            let (attachment, _) = raw.check(self.document, &self.security_groups, None)?;
            remote.push(attachment);
        }
        Ok(remote)
    }

    fn only_once(&mut self, eni_id: &str, span: &Range<usize>) -> Result<(), InputError> {
        let line = self.document.line(span);
        let Some(earlier) = self.lines.insert(eni_id.to_owned(), line) else {
            return Ok(());
        };
        let clause = format_args!(
            "allowed is one entry for each eni-id, and line {earlier} has this one already"
        );
        Err(self.document.refuse(span, clause))
    }

    fn entry(&mut self, raw: RawEni, line: usize) -> Result<EniEntry, InputError> {
        let RawEni {
            eni_id,
            vswitch_id,
            vm_id,
            vpc_id,
            account_id,
            region,
            r#match,
            side,
            hook,
            netfilter,
            security_mode,
            security_group_ids,
            private_ip_addresses,
            ipv6_addresses,
        } = raw;
        let device = checked_match(self.document, r#match)?;
        let raw = RawAttachment {
            security_mode,
            security_group_ids,
            private_ip_addresses,
            ipv6_addresses,
        };
        let (security, r#use) = raw.check(self.document, &self.security_groups, Some(&vpc_id))?;
        self.uses.extend(r#use);
        let eni = Eni {
            eni_id: eni_id.into_inner().into_string(),
            vswitch_id: vswitch_id.into_string(),
            vm_id: vm_id.map(Id::into_string),
            vpc_id: vpc_id.into_string(),
            account_id: account_id.into_string(),
            region: region.map(Id::into_string),
        };
        Ok(EniEntry {
            eni,
            device,
            side,
            hook,
            netfilter: netfilter.unwrap_or(true),
            security,
            line,
        })
    }
}

fn checked_match(
    document: &Document<'_>,
    r#match: Spanned<Table<DeviceMatch>>,
) -> Result<DeviceMatch, InputError> {
    let span = r#match.span();
    let Table(device) = r#match.into_inner();
    if device.is_empty() {
        return Err(document.refuse(
            &span,
            "allowed is at least one of name, mac, alias and namespace",
        ));
    }
    if let Some(name) = &device.name
        && name.as_str().len() - name.as_str().matches('*').count() > MAX_DEVICE_NAME_BYTES
    {
        let clause = format_args!(
            "`name` can match no device, for allowed are names of {MAX_DEVICE_NAME_BYTES} bytes at most"
        );
        return Err(document.refuse(&span, clause));
    }
    Ok(device)
}
