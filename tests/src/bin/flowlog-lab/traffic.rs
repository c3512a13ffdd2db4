//! The lab's traffic: a few ordinary conversations, each on a thread of its own and at its own pace, until told to stop.
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use flowlog_tests::{
    Error, Result,
    lab::{FrameSender, Namespace, traffic},
};

use crate::vpc::{GUEST_DEVICE, Vm, Vpc};

/// Until the first words: by then the agent has found its interfaces, so that it sees the beginning of all.
const QUIET: Duration = Duration::from_secs(1);
/// How long one answer is awaited.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long an answer is awaited that is not to come.
const SILENCE: Duration = Duration::from_millis(500);

/// One round of a conversation, and what it is.
struct Talk {
    what: &'static str,
    /// Before the first round, so that not all begin at once.
    first: Duration,
    /// From the start of one round to the next.
    every: Duration,
    round: Box<dyn FnMut() -> Result<()> + Send>,
}

/// The traffic, while this lives.
pub(crate) struct Traffic {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until `deadline`; whether to stop.
    fn wait_until(&self, deadline: Instant) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(told, left, |told| !*told)
            .unwrap_or_else(PoisonError::into_inner);
        *waited.0
    }
}

impl Traffic {
    /// Starts all conversations.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started or a socket cannot be had.
    pub(crate) fn start(vpc: &Vpc) -> Result<Self> {
        let mut traffic = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for talk in talks(vpc)? {
            let stop = Arc::clone(&traffic.stop);
            let thread = thread::Builder::new()
                .name(talk.what.to_owned())
                .spawn(move || repeat(talk, &stop))
                .map_err(|source| Error::System {
                    doing: "start a thread".to_owned(),
                    source,
                })?;
            traffic.threads.push(thread);
        }
        Ok(traffic)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.tell();
        for thread in self.threads.drain(..) {
            // A panic has been reported already.
            let _ = thread.join();
        }
    }
}

fn repeat(mut talk: Talk, stop: &Stop) {
    let mut next = Instant::now() + talk.first;
    let mut told = false;
    while !stop.wait_until(next) {
        next += talk.every;
        if let Err(error) = (talk.round)()
            && !std::mem::replace(&mut told, true)
        {
            crate::demo::say(&format!("the lab's {} failed: {error}", talk.what));
        }
        // After a round that took long, the pace begins anew: nothing is made up for.
        next = next.max(Instant::now());
    }
}

fn talks(vpc: &Vpc) -> Result<Vec<Talk>> {
    let [web, app, db] = &vpc.vms;
    let talk = |what, first_ms, every_ms, round: Box<dyn FnMut() -> Result<()> + Send>| Talk {
        what,
        first: QUIET + Duration::from_millis(first_ms),
        every: Duration::from_millis(every_ms),
        round,
    };
    Ok(vec![
        talk("HTTP", 300, 5000, http(web, app, v4(app, 8080))),
        talk("HTTP over IPv6", 2800, 5000, http(web, app, v6(app, 8080))),
        talk("SQL", 400, 250, sql(app, db, v4(db, 5432))),
        talk("DNS", 600, 5000, dns(web, app, v4(app, 53))),
        talk("ping", 500, 1000, ping(web, v4(db, 0).ip())),
        talk("IPv6 ping", 700, 1000, ping(app, v6(web, 0).ip())),
        talk("refused connection", 1200, 5000, refused(web, v4(db, 23))),
        talk("rejected connection", 1400, 5000, rejected(web, v4(db, 22))),
        talk("syslog", 1600, 5000, syslog(app, web, v4(web, 514))),
        talk("SCTP", 2000, 5000, sctp(app, db)?),
        talk("backup", 3500, 15_000, backup(db, web, v4(web, 873))),
    ])
}

type Round = Box<dyn FnMut() -> Result<()> + Send>;

fn v4(vm: &Vm, port: u16) -> SocketAddr {
    SocketAddr::new(vm.plan.v4().into(), port)
}

fn v6(vm: &Vm, port: u16) -> SocketAddr {
    SocketAddr::new(vm.plan.v6().into(), port)
}

fn failed(doing: &str) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.to_owned();
    move |source| Error::System { doing, source }
}

/// A connection with three requests of 200 octets, each answered with 12,000.
fn http(client: &Vm, server: &Vm, address: SocketAddr) -> Round {
    let (client, server) = (client.namespace.clone(), server.namespace.clone());
    Box::new(move || {
        let mut connection = Connection::open(&client, &server, address)?;
        for _ in 0..3 {
            connection.exchange(200, 12_000)?;
        }
        Ok(())
    })
}

/// A connection that stays: a query of 80 octets, answered with 600, each time.
fn sql(client: &Vm, server: &Vm, address: SocketAddr) -> Round {
    let (client, server) = (client.namespace.clone(), server.namespace.clone());
    let mut connection = None;
    Box::new(move || {
        let open = match &mut connection {
            Some(open) => open,
            none => none.insert(Connection::open(&client, &server, address)?),
        };
        open.exchange(80, 600).inspect_err(|_| connection = None)
    })
}

fn dns(client: &Vm, server: &Vm, address: SocketAddr) -> Round {
    let (client, server) = (client.namespace.clone(), server.namespace.clone());
    Box::new(move || traffic::udp_exchange(&client, (&server, address), 2, 48).map(drop))
}

fn ping(client: &Vm, address: IpAddr) -> Round {
    let client = client.namespace.clone();
    Box::new(move || traffic::ping(&client, address, 1, 56).map(drop))
}

/// 8 MB at once, in packets that leave the VM much larger than the wire's and are counted as on the wire.
fn backup(client: &Vm, server: &Vm, address: SocketAddr) -> Round {
    let (client, server) = (client.namespace.clone(), server.namespace.clone());
    Box::new(move || traffic::tcp_transfer(&client, (&server, address), 8_000_000).map(drop))
}

/// A SYN to a port on which nobody listens; the answer is a RST.
fn refused(client: &Vm, address: SocketAddr) -> Round {
    let client = client.namespace.clone();
    Box::new(
        move || match client.enter(|| TcpStream::connect_timeout(&address, ANSWER_LIMIT))? {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(failed("be refused")(error)),
            Ok(_) => Err(Error::Invalid(format!("{address} accepts connections"))),
        },
    )
}

/// A SYN that the security group of the server drops: nothing answers.
fn rejected(client: &Vm, address: SocketAddr) -> Round {
    let client = client.namespace.clone();
    Box::new(
        move || match client.enter(|| TcpStream::connect_timeout(&address, SILENCE))? {
            // Refused it is while no agent enforces the group yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(failed("be rejected")(error)),
            Ok(_) => Err(Error::Invalid(format!("{address} accepts connections"))),
        },
    )
}

/// One datagram of 4,000 octets, which takes three fragments.
fn syslog(client: &Vm, server: &Vm, address: SocketAddr) -> Round {
    let (client, server) = (client.namespace.clone(), server.namespace.clone());
    Box::new(move || {
        let receiver = server
            .enter(|| UdpSocket::bind(address))?
            .map_err(failed("listen to syslog"))?;
        client
            .enter(|| UdpSocket::bind("0.0.0.0:0")?.send_to(&[b'.'; 4000], address))?
            .map_err(failed("send a syslog message"))?;
        let mut buffer = [0; 4096];
        receiver
            .set_read_timeout(Some(ANSWER_LIMIT))
            .and_then(|()| receiver.recv(&mut buffer))
            .map_err(failed("receive a syslog message"))
            .map(drop)
    })
}

/// An SCTP INIT as a raw frame; the answer is an ICMP error, for the VM's kernel does not speak SCTP, or an ABORT if it does.
fn sctp(client: &Vm, server: &Vm) -> Result<Round> {
    let mut sender = FrameSender::open(&client.namespace, GUEST_DEVICE)?;
    let frame = sctp_frame(client, server);
    Ok(Box::new(move || sender.send(&frame)))
}

fn sctp_frame(client: &Vm, server: &Vm) -> Vec<u8> {
    const SCTP: u8 = 132;
    let mut ip = vec![0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, SCTP, 0, 0];
    ip.extend(client.plan.v4().octets());
    ip.extend(server.plan.v4().octets());
    let sum: u32 = ip.chunks_exact(2).fold(0, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip.splice(10..12, checksum.to_be_bytes());
    let mut frame = client.plan.router_mac().to_vec();
    frame.extend(client.plan.mac());
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    // Ports 2905 (M3UA) and 2905, verification tag 0, a checksum that nobody verifies on the way.
    frame.extend([0x0b, 0x59, 0x0b, 0x59, 0, 0, 0, 0, 0, 0, 0, 0]);
    // INIT of 20 octets: tag, window, streams out and in, first sequence number.
    frame.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    frame
}

/// Both ends of a TCP connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(client: &Namespace, server: &Namespace, address: SocketAddr) -> Result<Self> {
        let doing = format!("connect to {address}");
        let listener = server
            .enter(|| TcpListener::bind(address))?
            .map_err(failed(&doing))?;
        let client = client
            .enter(|| TcpStream::connect_timeout(&address, ANSWER_LIMIT))?
            .map_err(failed(&doing))?;
        // The kernel has completed the handshake, so this does not wait.
        let (server, _) = listener.accept().map_err(failed(&doing))?;
        for stream in [&client, &server] {
            stream
                .set_read_timeout(Some(ANSWER_LIMIT))
                .and_then(|()| stream.set_write_timeout(Some(ANSWER_LIMIT)))
                .map_err(failed(&doing))?;
        }
        Ok(Self { client, server })
    }

    /// A request and its answer, each small enough for the sockets' buffers, so that one thread can do both.
    fn exchange(&mut self, request_bytes: usize, answer_bytes: usize) -> Result<()> {
        let mut buffer = vec![0; request_bytes.max(answer_bytes)];
        let (request, answer) = (0..request_bytes, 0..answer_bytes);
        (|| {
            self.client.write_all(&buffer[request.clone()])?;
            self.server.read_exact(&mut buffer[request])?;
            self.server.write_all(&buffer[answer.clone()])?;
            self.client.read_exact(&mut buffer[answer])
        })()
        .map_err(failed("talk over TCP"))
    }
}
