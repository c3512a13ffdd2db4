//! A TCP connection over the wire.
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use flowlog_tests::lab::EndPlan;

/// How long an end waits for what is to come. What is lost is sent again within that, however often it was lost before.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits for what is not to come.
const SILENCE: Duration = Duration::from_millis(300);
/// What is said at a time.
const WORD: &[u8] = b"hello";

/// Both ends.
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

/// Whoever speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Client,
    Server,
}

impl Connection {
    /// From the one end to an address of the other.
    pub(crate) fn open(client: &EndPlan, (server, target): (&EndPlan, SocketAddr)) -> Self {
        let listener = server.namespace.enter(|| TcpListener::bind(target));
        let listener = listener.expect("the namespace").expect("a listener");
        let connect = || TcpStream::connect_timeout(&target, PATIENCE);
        let client = client.namespace.enter(connect);
        let client = client.expect("the namespace").expect("a connection");
        let server = listener.accept().expect("a connection").0;
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("at once");
        }
        Self { client, server }
    }

    /// One end says something.
    pub(crate) fn say(&mut self, speaker: Speaker) {
        let stream = match speaker {
            Speaker::Client => &mut self.client,
            Speaker::Server => &mut self.server,
        };
        stream.write_all(WORD).expect("sent");
    }

    /// Whether the other end hears it.
    pub(crate) fn is_heard(&mut self, speaker: Speaker, patience: Duration) -> bool {
        let stream = match speaker {
            Speaker::Client => &mut self.server,
            Speaker::Server => &mut self.client,
        };
        stream
            .set_read_timeout(Some(patience))
            .expect("a time limit");
        let mut heard = [0; WORD.len()];
        match stream.read_exact(&mut heard) {
            Ok(()) => heard == WORD,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("the connection is broken: {error}"),
        }
    }

    /// Each end says something that the other hears, beginning with the server.
    pub(crate) fn talk(&mut self) {
        for speaker in [Speaker::Server, Speaker::Client] {
            self.say(speaker);
            assert!(self.is_heard(speaker, PATIENCE), "it passes as its session");
        }
    }

    /// The client says something, and nobody hears it.
    pub(crate) fn is_cut(&mut self) -> bool {
        self.say(Speaker::Client);
        !self.is_heard(Speaker::Client, SILENCE)
    }

    /// What was said in vain is heard after all.
    pub(crate) fn goes_on(&mut self) {
        assert!(self.is_heard(Speaker::Client, PATIENCE), "it is sent again");
    }
}
