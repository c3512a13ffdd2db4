//! Records as a table for people: a window at a time, ENI by ENI, the heaviest conversations first.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io,
    net::IpAddr,
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use flowlog_model::{
    flow_log::FlowLog,
    record::{Action, Direction, FlowTuple, LogStatus, Record},
};

use super::{Written, delivery::Delivery, lines::WriteLines};
use crate::report::grouped;

/// Rows that are shown of a window; the others are added up in one line.
const MAX_ROWS: usize = 60;

/// ENIs without traffic that are named.
const MAX_SILENT: usize = 6;

/// Columns of text that a line has at most, but for an ENI's own line.
const MAX_WIDTH: usize = 118;

const HEADER: [&str; 8] = [
    "DIR",
    "PROTO",
    "SOURCE",
    "DESTINATION",
    "PACKETS",
    "BYTES",
    "FLAGS",
    "ACTION",
];
const ENDPOINTS: [usize; 2] = [2, 3];
const NUMBERS: [usize; 2] = [4, 5];

/// Both directions of one.
type Conversation = ((IpAddr, u16), (IpAddr, u16), u8);

struct Row {
    eni: String,
    conversation: Option<Conversation>,
    /// Bytes of both directions of the conversation.
    weight: u64,
    bytes: u64,
    packets: u64,
    cells: [String; 8],
}

#[derive(Clone, Copy, Default)]
struct Sum {
    packets: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// What the line above an ENI's rows says.
#[derive(Default)]
struct EniLine {
    identity: String,
    r#in: Sum,
    out: Sum,
    silent: bool,
}

/// A window, as far as it will be shown.
#[derive(Default)]
struct View {
    records: u64,
    enis: BTreeMap<String, EniLine>,
    rows: Vec<Row>,
    cut_rows: u64,
    cut: Sum,
}

/// Writes the window's records as a table.
pub(super) fn write(
    delivery: &dyn Delivery,
    flow_log: &FlowLog,
    write_lines: &mut WriteLines<'_>,
) -> io::Result<Written> {
    let mut view = View::default();
    let dropped_late = delivery.render(flow_log, &mut |record| view.add(record))?;
    view.order();
    let label = delivery.label();
    let (start, end) = (clock_time(label.start), clock_time(label.end));
    let title = format!(
        "── {} · {start} to {end} UTC · {} {} ",
        flow_log.name.as_str(),
        grouped(view.records),
        if view.records == 1 {
            "record"
        } else {
            "records"
        }
    );
    let text = view.render(&title);
    write_lines(text.as_bytes())?;
    Ok(Written {
        records: view.records,
        bytes: text.len() as u64,
        dropped_late,
    })
}

impl View {
    fn add(&mut self, record: &Record<'_>) {
        self.records += 1;
        let (packets, bytes) = (record.packets.unwrap_or(0), record.bytes.unwrap_or(0));
        let id = &record.eni.eni_id;
        if !self.enis.contains_key(id) {
            self.enis.insert(id.clone(), eni_line(record));
        }
        if let Some(line) = self.enis.get_mut(id) {
            match record.direction {
                Some(Direction::In) => line.r#in.add(packets, bytes),
                Some(Direction::Out) => line.out.add(packets, bytes),
                None => line.silent = record.log_status == LogStatus::NoData,
            }
        }
        if record.log_status == LogStatus::NoData {
            return;
        }
        self.rows.push(row(record));
        // What will not be shown need not be kept.
        if self.rows.len() > MAX_ROWS * 4 {
            self.cut();
        }
    }

    /// Keeps the heaviest.
    fn cut(&mut self) {
        self.rows.sort_by_key(|row| Reverse(row.bytes));
        for row in self.rows.drain(MAX_ROWS.min(self.rows.len())..) {
            self.cut_rows += 1;
            self.cut.add(row.packets, row.bytes);
        }
    }

    /// The two directions of a conversation stand together.
    fn order(&mut self) {
        self.cut();
        let mut weights: HashMap<(&str, Conversation), u64> = HashMap::new();
        for row in &self.rows {
            if let Some(conversation) = row.conversation {
                *weights.entry((&row.eni, conversation)).or_default() += row.bytes;
            }
        }
        let weights: Vec<u64> = self
            .rows
            .iter()
            .map(|row| {
                let known = row.conversation.and_then(|c| weights.get(&(&row.eni, c)));
                // What is in no flow comes first: it matters most.
                known.copied().unwrap_or(u64::MAX)
            })
            .collect();
        for (row, weight) in self.rows.iter_mut().zip(weights) {
            row.weight = weight;
        }
        self.rows.sort_by(|a, b| {
            let key = |row: &Row| (Reverse(row.weight), row.conversation, Reverse(row.bytes));
            a.eni.cmp(&b.eni).then_with(|| key(a).cmp(&key(b)))
        });
    }

    fn render(&self, title: &str) -> String {
        let lines = self.table_lines();
        let width = lines.iter().map(|line| line.chars().count()).max();
        let mut text = format!("\n{title:─<width$}\n", width = width.unwrap_or(0));
        let (header, rows) = match lines.split_first() {
            Some((header, rows)) if !self.rows.is_empty() => (Some(header), rows),
            _ => (None, Default::default()),
        };
        if let Some(header) = header {
            let _ = writeln!(text, "{header}");
        }
        let mut rows = self.rows.iter().zip(rows).peekable();
        for (id, line) in self.enis.iter().filter(|(_, line)| !line.silent) {
            let _ = writeln!(text, "{}", line.render(id));
            while let Some((_, shown)) = rows.next_if(|(row, _)| row.eni == *id) {
                let _ = writeln!(text, "{shown}");
            }
        }
        self.render_silent(&mut text);
        if self.cut_rows > 0 {
            let _ = writeln!(
                text,
                "… and {} smaller flows: {}",
                grouped(self.cut_rows),
                self.cut.render()
            );
        }
        text
    }

    fn render_silent(&self, text: &mut String) {
        let silent: Vec<&str> = self
            .enis
            .iter()
            .filter(|(_, line)| line.silent)
            .map(|(id, _)| id.as_str())
            .collect();
        if silent.is_empty() {
            return;
        }
        let named: Vec<&str> = silent.iter().copied().take(MAX_SILENT).collect();
        let _ = write!(text, "NODATA, no traffic: {}", named.join(", "));
        match silent.len().saturating_sub(MAX_SILENT) {
            0 => text.push('\n'),
            others => {
                let _ = writeln!(text, " and {others} more");
            }
        }
    }

    /// The header and one line for each row.
    fn table_lines(&self) -> Vec<String> {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(HEADER);
        let longest = self.longest_endpoint();
        for row in &self.rows {
            let mut cells = row.cells.clone();
            for cell in ENDPOINTS {
                if let Some(cell) = cells.get_mut(cell) {
                    *cell = shortened(cell, longest);
                }
            }
            table.add_row(cells);
        }
        for column in NUMBERS {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
            .lines()
            .map(|line| format!(" {}", line.trim_end()))
            .collect()
    }

    /// Characters that an endpoint may have, so that a line fits.
    fn longest_endpoint(&self) -> usize {
        let others: usize = (0..HEADER.len())
            .filter(|column| !ENDPOINTS.contains(column))
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
                cells
                    .map(|cell| cell.chars().count())
                    .chain([HEADER.get(column).map_or(0, |name| name.len())])
                    .max()
                    .unwrap_or(0)
            })
            .sum();
        // Each column has a space on either side, and the line one more.
        let gaps = HEADER.len() * 2 + 1;
        (MAX_WIDTH.saturating_sub(others + gaps) / 2).max(16)
    }
}

impl EniLine {
    fn render(&self, id: &str) -> String {
        format!(
            "{id} ({})  in: {}  out: {}",
            self.identity,
            self.r#in.render(),
            self.out.render()
        )
    }
}

impl Sum {
    fn render(self) -> String {
        let unit = if self.packets == 1 {
            "packet"
        } else {
            "packets"
        };
        format!(
            "{} {unit}, {} bytes",
            grouped(self.packets),
            grouped(self.bytes)
        )
    }
}

fn eni_line(record: &Record<'_>) -> EniLine {
    let eni = record.eni;
    let vm = eni.vm_id.as_ref().map(|vm| format!("{vm}, "));
    EniLine {
        identity: format!(
            "{}{}, {}",
            vm.unwrap_or_default(),
            eni.vswitch_id,
            eni.vpc_id
        ),
        ..EniLine::default()
    }
}

fn row(record: &Record<'_>) -> Row {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let flow = record.flow.as_ref();
    let (source, destination) = match flow {
        Some(flow) => (
            endpoint(flow.src_addr, flow.src_port, flow),
            endpoint(flow.dst_addr, flow.dst_port, flow),
        ),
        None => ("in no flow".to_owned(), "-".to_owned()),
    };
    Row {
        eni: record.eni.eni_id.clone(),
        conversation: flow.map(conversation),
        weight: 0,
        bytes: record.bytes.unwrap_or(0),
        packets: record.packets.unwrap_or(0),
        cells: [
            record
                .direction
                .map_or("-", |direction| direction.as_str())
                .to_owned(),
            or_dash(flow.map(|flow| protocol(flow.protocol))),
            source,
            destination,
            number(record.packets),
            number(record.bytes),
            or_dash(record.tcp_flags.map(flags)),
            match (record.log_status, record.action) {
                (LogStatus::Ok, Some(Action::Reject)) => Action::Reject.as_str(),
                (LogStatus::Ok, _) => Action::Accept.as_str(),
                (status, _) => status.as_str(),
            }
            .to_owned(),
        ],
    }
}

fn conversation(flow: &FlowTuple) -> Conversation {
    let source = (flow.src_addr, flow.src_port);
    let destination = (flow.dst_addr, flow.dst_port);
    (
        source.min(destination),
        source.max(destination),
        flow.protocol,
    )
}

fn endpoint(address: IpAddr, port: u16, flow: &FlowTuple) -> String {
    match (flow.src_port, flow.dst_port, address) {
        (0, 0, address) => address.to_string(),
        (_, _, IpAddr::V4(address)) => format!("{address}:{port}"),
        (_, _, IpAddr::V6(address)) => format!("[{address}]:{port}"),
    }
}

/// With the middle left out where it is longer than `longest` characters.
fn shortened(text: &str, longest: usize) -> String {
    let length = text.chars().count();
    if length <= longest {
        return text.to_owned();
    }
    let head = longest.saturating_sub(1) / 2;
    let tail = longest.saturating_sub(1) - head;
    text.chars()
        .take(head)
        .chain(['…'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

/// Names that people know; the others are numbers as in IANA's registry.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => return number.to_string(),
    }
    .to_owned()
}

/// As tcpdump has them, in the order in which a connection shows them.
fn flags(flags: u8) -> String {
    const LETTERS: [(u8, char); 8] = [
        (2, 'S'),
        (16, 'A'),
        (8, 'P'),
        (1, 'F'),
        (4, 'R'),
        (32, 'U'),
        (64, 'E'),
        (128, 'C'),
    ];
    LETTERS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, letter)| *letter)
        .collect()
}

/// `HH:MM:SS` of a Unix time.
fn clock_time(unix_seconds: u64) -> String {
    let day = unix_seconds % 86_400;
    format!("{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60)
}

#[cfg(test)]
mod tests;
