//! How the service knows this host.
use flowlog_model::text::{Id, Text as _};

/// The name of the host in its UTS namespace.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// What a host without a name is called.
const NAMELESS: &str = "host";

/// The host's name, as an [`Id`].
pub(crate) fn name() -> String {
    as_id(&std::fs::read_to_string(HOST_NAME).unwrap_or_default())
}

fn as_id(name: &str) -> String {
    let legal = |c: char| {
        if Id::from_text(&format!("a{c}")).is_some() {
            c
        } else {
            '-'
        }
    };
    let id: String = name.trim().chars().map(legal).take(64).collect();
    if Id::from_text(&id).is_some() {
        id
    } else {
        NAMELESS.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_an_id() {
        assert_eq!(as_id("db-1.example\n"), "db-1.example");
        assert_eq!(as_id("a b\u{e9}"), "a-b-");
        assert_eq!(as_id(&"a".repeat(200)), "a".repeat(64));
        assert_eq!(as_id("(none)\n"), "-none-");
        assert_eq!(as_id(""), NAMELESS);
        assert!(Id::from_text(&name()).is_some());
    }
}
