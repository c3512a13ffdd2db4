//! Where the service is.
use std::fmt;

use flowlog_model::text::Text;
use flowlog_model::text_type;
use hyper::Uri;

/// Longest URL, in bytes.
const MAX_BYTES: usize = 255;

/// Where the service is: `http` or `https`, a host and a port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceUrl {
    tls: bool,
    /// Without brackets, where it is an IPv6 address.
    host: String,
    port: u16,
}

impl ServiceUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// A name or an address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `host` header: with the port, also where it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Text for ServiceUrl {
    fn allowed() -> String {
        "allowed is a URL with a host and perhaps a port, as http://127.0.0.1:8080 or https://flowlog.example".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let uri: Uri = (text.len() <= MAX_BYTES).then(|| text.parse().ok())??;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority()?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        // A port that is no number is none to `Uri`, and so is an empty one.
        let rest = authority.as_str().rsplit(']').next().unwrap_or_default();
        let port = match (authority.port_u16(), rest.contains(':')) {
            (Some(port), _) => port,
            (None, true) => return None,
            (None, false) => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let is_plain = is_bare && !authority.as_str().contains('@') && !text.contains('#');
        (is_plain && !host.is_empty() && port != 0).then(|| Self {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

text_type!(ServiceUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown, tls, host) in [
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                false,
                "127.0.0.1",
            ),
            (
                "https://flowlog.example/",
                "https://flowlog.example:443",
                true,
                "flowlog.example",
            ),
            ("http://[::1]:81", "http://[::1]:81", false, "::1"),
            ("http://[::1]", "http://[::1]:80", false, "::1"),
        ] {
            let url: ServiceUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.is_tls(), url.host()),
                (shown, tls, host)
            );
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://host",
            "http://",
            "http://host/path",
            "http://host?a=b",
            "http://host#a",
            "http://user@host",
            "http://host:port",
            "http://host:",
            "http://host:0",
            "http://host:70000",
            &format!("http://{}", "a".repeat(256)),
        ] {
            assert!(bad.parse::<ServiceUrl>().is_err(), "{bad}");
        }
    }
}
