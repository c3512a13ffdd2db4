//! The agent's metrics, as a Prometheus server would read them.
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Error, Result, lab::Namespace};

/// How long connecting, and each read, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Largest answer, in octets.
const MAX_ANSWER: u64 = 16 << 20;

/// Scrapes `http://{listen}/metrics` from within `namespace` and returns the body.
///
/// # Errors
/// If nobody answers within 5 s, or the answer is no success.
pub fn scrape(namespace: &Namespace, listen: SocketAddr) -> Result<String> {
    let answer = namespace
        .enter(|| get(listen))?
        .map_err(Error::system(format!("scrape http://{listen}/metrics")))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(Error::Invalid(format!(
            "http://{listen}/metrics answered: {}",
            answer.lines().next().unwrap_or_default()
        ))),
    }
}

fn get(listen: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&listen, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // `Connection: close`, so that the body ends with the stream; the server gives its length and does not chunk it.
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The value of the one sample in `text` that has this name and all these labels, as in
/// `metric(&text, "flowlog_agent_packets_total", &[("eni", "eni-a"), ("direction", "in")])`.
#[must_use]
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut samples = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let (sample_name, sample_labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (sample, ""),
        };
        let has = |(key, value): &(&str, &str)| {
            let wanted = format!("{key}=\"{value}\"");
            sample_labels.split(',').any(|label| label == wanted)
        };
        (sample_name == name && labels.iter().all(has)).then(|| value.parse().ok())?
    });
    let value = samples.next()?;
    samples.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::metric;

    #[test]
    fn a_sample_is_told_by_name_and_labels() {
        let text =
            "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 7\na_total{x=\"2\",y=\"2\"} 8\nb 1.5\n";
        assert_eq!(metric(text, "a_total", &[("x", "2")]), Some(8.0));
        assert_eq!(metric(text, "a_total", &[("y", "2")]), None, "two samples");
        assert_eq!(metric(text, "b", &[]), Some(1.5));
        assert_eq!(metric(text, "c", &[]), None);
    }
}
