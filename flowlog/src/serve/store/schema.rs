//! The tables, by version. SQLite's `user_version` is the number of migrations that a file has seen.
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Migrations are only ever added.
const MIGRATIONS: [&str; 2] = [
    // 1. Moments are Unix milliseconds. Versions of the desired state grow with every change of it.
    "CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE access_key (
        id TEXT PRIMARY KEY,
        account_id TEXT NOT NULL,
        secret BLOB NOT NULL,
        role TEXT NOT NULL,
        status TEXT NOT NULL,
        description TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE flow_log (
        id TEXT PRIMARY KEY,
        account_id TEXT NOT NULL,
        region TEXT NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        resource_type TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        traffic_type TEXT NOT NULL,
        project TEXT NOT NULL,
        logstore TEXT NOT NULL,
        aggregation_interval INTEGER NOT NULL,
        ip_version TEXT NOT NULL,
        log_format TEXT NOT NULL,
        traffic_path TEXT NOT NULL,
        resource_group TEXT NOT NULL,
        -- What clients see; differs from target while agents have not applied the version.
        status TEXT NOT NULL,
        -- Active, Inactive or Gone.
        target TEXT NOT NULL,
        -- The version of the desired state that first had it as it is.
        version INTEGER NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX flow_log_of_account ON flow_log (account_id, region, created_at);
    CREATE INDEX flow_log_of_resource ON flow_log (account_id, resource_type, resource_id);
    CREATE INDEX flow_log_in_transition ON flow_log (id) WHERE status <> target;

    CREATE TABLE tag (
        flow_log_id TEXT NOT NULL REFERENCES flow_log (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (flow_log_id, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE agent (
        account_id TEXT NOT NULL,
        host_id TEXT NOT NULL,
        key_id TEXT NOT NULL UNIQUE REFERENCES access_key (id) ON DELETE CASCADE,
        agent_version TEXT NOT NULL,
        applied_version INTEGER NOT NULL,
        desired_version INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        PRIMARY KEY (account_id, host_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE eni (
        account_id TEXT NOT NULL,
        eni_id TEXT NOT NULL,
        host_id TEXT NOT NULL,
        vswitch_id TEXT NOT NULL,
        vpc_id TEXT NOT NULL,
        vm_id TEXT NOT NULL,
        -- Empty: in every region.
        region TEXT NOT NULL,
        captured INTEGER NOT NULL,
        PRIMARY KEY (account_id, eni_id),
        FOREIGN KEY (account_id, host_id) REFERENCES agent (account_id, host_id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX eni_of_host ON eni (account_id, host_id);
    CREATE INDEX eni_of_vswitch ON eni (account_id, vswitch_id, vpc_id);

    -- Which host has an ENI of which resource: made of eni, so that looking up does not cost a scan of all ENIs.
    CREATE TABLE host_resource (
        account_id TEXT NOT NULL,
        resource_type TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        host_id TEXT NOT NULL,
        region TEXT NOT NULL,
        PRIMARY KEY (account_id, resource_type, resource_id, host_id, region),
        FOREIGN KEY (account_id, host_id) REFERENCES agent (account_id, host_id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX host_resource_of_host ON host_resource (account_id, host_id);

    CREATE TABLE delivery (
        flow_log_id TEXT NOT NULL REFERENCES flow_log (id) ON DELETE CASCADE,
        account_id TEXT NOT NULL,
        host_id TEXT NOT NULL,
        status TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (flow_log_id, account_id, host_id),
        FOREIGN KEY (account_id, host_id) REFERENCES agent (account_id, host_id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivery_of_host ON delivery (account_id, host_id);

    CREATE TABLE service (
        account_id TEXT NOT NULL,
        region TEXT NOT NULL,
        opened_at INTEGER NOT NULL,
        PRIMARY KEY (account_id, region)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        account_id TEXT NOT NULL,
        key_id TEXT NOT NULL,
        action TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_of_account ON audit (account_id, number);
    CREATE INDEX audit_of_resource ON audit (account_id, resource_id, number);",
    // 2. The Log Service: projects and logstores. Options and indexes are JSON; a logstore without an index is not searched.
    "CREATE TABLE project (
        name TEXT PRIMARY KEY,
        account_id TEXT NOT NULL,
        description TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX project_of_account ON project (account_id, name);

    CREATE TABLE logstore (
        project TEXT NOT NULL REFERENCES project (name),
        name TEXT NOT NULL,
        ttl_days INTEGER NOT NULL,
        options TEXT NOT NULL,
        search_index TEXT,
        index_changed_at INTEGER NOT NULL,
        -- Its logs are being removed, and nobody sees it any more.
        is_going INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        PRIMARY KEY (project, name)
    ) STRICT, WITHOUT ROWID;",
];

/// Brings a file to the latest version, in one transaction.
pub(super) fn migrate(mut connection: Connection, path: &Path) -> Result<Connection, StoreError> {
    let found = run(&mut connection).map_err(|source| StoreError::Sqlite {
        path: path.to_owned(),
        source,
    })?;
    match found {
        found if found > MIGRATIONS.len() => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        }),
        _ => Ok(connection),
    }
}

fn run(connection: &mut Connection) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found < MIGRATIONS.len() {
        for migration in MIGRATIONS.iter().skip(found) {
            transaction.execute_batch(migration)?;
        }
        let latest = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
        transaction.pragma_update(None, "user_version", latest)?;
    }
    transaction.commit()?;
    Ok(found)
}
