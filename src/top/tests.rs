//! Whole screens, driven by hand.

use std::time::{Duration, Instant};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{
    known::{Answer, Heard, Known},
    panes::Pane,
    picture,
    screen::{Palette, Screen, text_of},
    view::{Next, View},
};
use crate::control::{
    Candidate, Network, Own, Peer, Status, Why,
    services::{Exposed, Forward, Listed, ListedModel, Models},
};

const SECOND: Duration = Duration::from_secs(1);

fn peer(name: &str, number: u8, online: bool) -> Peer {
    Peer {
        name: name.to_owned(),
        peer_id: format!("12D3{name}"),
        ipv4: Some([10, 77, 0, number].into()),
        ipv6: format!("fd00::{number}").parse().unwrap(),
        online,
        path: if online { "direct" } else { "none" }.to_owned(),
        endpoint: online.then(|| format!("203.0.113.{number}:7777")),
        relay: None,
        rtt_ms: online.then_some(1.25 * f64::from(number)),
        mtu: Some(1420),
        tx_bytes: 0,
        rx_bytes: 0,
        last_handshake_s: online.then_some(42),
        post_quantum: true,
    }
}

fn status() -> Status {
    let mut relayed = peer("日本", 4, true);
    relayed.path = "relay".to_owned();
    (relayed.endpoint, relayed.relay) = (None, Some("gate".to_owned()));
    Status {
        network: Network {
            name: "home".to_owned(),
            id: "00ff".to_owned(),
        },
        node: Own {
            name: "a".to_owned(),
            peer_id: "12D3a".to_owned(),
            ipv4: Some([10, 77, 0, 1].into()),
            ipv6: "fd00::1".parse().unwrap(),
            interface: "hive0".to_owned(),
            listen: vec![],
            reachability: "public".to_owned(),
            standing: "member".to_owned(),
            expelled: None,
        },
        peers: vec![peer("attic", 2, false), peer("gpu", 3, true), relayed],
        drops: [("policy".to_owned(), 5)].into(),
        rejections: [].into(),
    }
}

fn service() -> Listed {
    Listed {
        name: "llm".to_owned(),
        kind: "openai".to_owned(),
        node: "gpu".to_owned(),
        address: "10.77.0.3".to_owned(),
        port: 8000,
        health: "up".to_owned(),
        models: vec!["qwen3".to_owned(), "bge".to_owned()],
        age_s: 130,
        protocol: "tcp".to_owned(),
        to: vec!["group:friends".to_owned()],
        description: Some("for everybody\u{1b}[2J".to_owned()),
        tags: vec![],
    }
}

fn model(id: &str, load: f64) -> ListedModel {
    ListedModel {
        id: id.to_owned(),
        node: "gpu".to_owned(),
        load,
        rtt_ms: Some(3.8),
        loaded: Some(load > 0.0),
        service: "llm".to_owned(),
        health: "up".to_owned(),
        context: Some(32_768),
        queued: 2,
        tokens_per_s: 41.25,
        price_in: Some(12),
        price_out: Some(36),
        currency: Some("EUR".to_owned()),
    }
}

fn exposed() -> Exposed {
    Exposed {
        name: "web".to_owned(),
        kind: "http".to_owned(),
        target: "127.0.0.1:3000".parse().unwrap(),
        address: "10.77.0.1".to_owned(),
        port: 80,
        protocol: "tcp".to_owned(),
        notes: vec![],
        to: vec![],
        health: "down".to_owned(),
        left_s: Some(3600),
        connections: 3,
        problem: Some("connection refused".to_owned()),
    }
}

fn forward() -> Forward {
    Forward {
        listen: "127.0.0.1:5432".parse().unwrap(),
        protocol: "tcp".to_owned(),
        to: "db.attic".to_owned(),
        left_s: None,
        connections: 0,
        problem: None,
    }
}

/// Somebody who looks at a node.
struct Watcher {
    known: Known,
    view: View,
    now: Instant,
    status: Status,
}

impl Watcher {
    /// Has looked for ten seconds, in which gpu sent 1 MB/s and got a tenth of it.
    fn new() -> Self {
        let mut watcher = Self::without_a_word();
        watcher.hear(Answer::Status(Ok(Box::new(watcher.status.clone()))));
        watcher.hear(Answer::UpFor(Duration::from_secs(2 * 3600 - 10)));
        for _ in 0..10 {
            watcher.passes();
        }
        watcher
    }

    fn without_a_word() -> Self {
        Self {
            known: Known {
                interval: SECOND,
                ..Known::default()
            },
            view: View::default(),
            now: Instant::now(),
            status: status(),
        }
    }

    fn hear(&mut self, answer: Answer) {
        let at = self.now;
        self.known.hear(Heard { at, answer });
    }

    /// A second passes, in which bytes flow.
    fn passes(&mut self) {
        self.now += SECOND;
        self.status.peers[1].rx_bytes += 1_000_000;
        self.status.peers[1].tx_bytes += 100_000;
        self.hear(Answer::Status(Ok(Box::new(self.status.clone()))));
    }

    fn offers(&mut self) {
        self.hear(Answer::Services(Ok(vec![service()])));
        self.hear(Answer::Models(Ok(Models {
            endpoint: "http://ai.home.hive.internal/v1".to_owned(),
            models: vec![model("qwen3", 0.5), model("bge", 0.0)],
        })));
        self.hear(Answer::Exposed(Ok(vec![exposed()])));
        self.hear(Answer::Forwards(Ok(vec![forward()])));
    }

    fn press(&mut self, keys: &str) -> Next {
        let codes = keys.chars().map(|key| match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '↓' => KeyCode::Down,
            key => KeyCode::Char(key),
        });
        let codes: Vec<_> = codes.collect();
        let mut next = Next::Go;
        for code in codes {
            self.cells(100, 20, Palette::PLAIN);
            next = self.view.press(code.into(), &self.known);
        }
        next
    }

    fn cells(&mut self, columns: u16, lines: u16, palette: Palette) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        let screen = Screen {
            known: &self.known,
            palette,
        };
        let (view, now) = (&mut self.view, self.now);
        terminal
            .draw(|frame| screen.draw(view, frame.buffer_mut(), now))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    fn sees(&mut self, columns: u16, lines: u16) -> String {
        text_of(&self.cells(columns, lines, Palette::PLAIN))
    }
}

#[test]
fn a_screen_shows_the_node_what_goes_by_and_its_peers_those_online_first() {
    let mut watcher = Watcher::new();
    watcher.offers();
    let bars = " ".repeat(80);
    let expected = format!(
        "\
home  a  10.77.0.1  fd00::1  on hive0  public  member  up 2 h
in    1.0 MB/s  {bars}█████
out 100.0 kB/s  {bars}▁▁▁▁▁
nothing dropped or refused in the last minute
 1 Peers 2/3  2 Services 1  3 Models 2  4 Ports 2
PEER   ADDRESS    PATH             RTT          IN         OUT  RECEIVED      SENT  HANDSHAKE
gpu    10.77.0.3  direct        3.8 ms    1.0 MB/s  100.0 kB/s   10.0 MB    1.0 MB   42 s ago
日本   10.77.0.4  relay gate    5.0 ms       0 B/s       0 B/s       0 B       0 B   42 s ago
attic  10.77.0.2  none               -       0 B/s       0 B/s       0 B       0 B          -






q quit  ? help  / filter  s sort  Enter details  Tab next pane
"
    );
    assert_eq!(watcher.sees(101, 16), expected);
}

#[test]
fn on_a_tiny_screen_what_matters_stays() {
    let mut watcher = Watcher::new();
    let expected = "\
home  a  10.77.0.1  up 2 h
in 1.0 MB/s  out 100.0 kB/s
 1 Peers 2/3  2  3  4
PEER   PATH               IN         OUT
gpu    direct       1.0 MB/s  100.0 kB/s
日本   relay ga…       0 B/s       0 B/s
attic  none            0 B/s       0 B/s


q quit  ? help  / filter  s sort
";
    assert_eq!(watcher.sees(40, 10), expected);
}

#[test]
fn no_screen_is_too_small() {
    let mut watcher = Watcher::new();
    watcher.offers();
    for keys in ["", "?", "\u{1b}\n", "\u{1b}2", "3\n", "\u{1b}4/x", "\nss"] {
        watcher.press(keys);
        for columns in 0..50 {
            for lines in 0..14 {
                watcher.cells(columns, lines, Palette::terminal(true));
            }
        }
    }
}

#[test]
fn a_picture_shows_all_tables() {
    let mut watcher = Watcher::new();
    watcher.offers();
    let bars = " ".repeat(79);
    let expected = format!(
        "\
home  a  10.77.0.1  fd00::1  on hive0  public  member  up 2 h
in    1.0 MB/s  {bars}█████
out 100.0 kB/s  {bars}▁▁▁▁▁
nothing dropped or refused in the last minute

Peers 2/3
PEER   ADDRESS    PATH             RTT          IN         OUT  RECEIVED      SENT  HANDSHAKE
gpu    10.77.0.3  direct        3.8 ms    1.0 MB/s  100.0 kB/s   10.0 MB    1.0 MB   42 s ago
日本   10.77.0.4  relay gate    5.0 ms       0 B/s       0 B/s       0 B       0 B   42 s ago
attic  10.77.0.2  none               -       0 B/s       0 B/s       0 B       0 B          -

Services 1
SERVICE  KIND    NODE  ADDRESS         HEALTH  MODELS        AGE
llm      openai  gpu   10.77.0.3:8000  up      qwen3,bge   2 min

Models 2
MODEL  NODE            LOAD  QUEUE       RTT  WARM  TOKENS/S      PRICE
bge    gpu              0 %      2    3.8 ms  cold      41.2  12/36 EUR
qwen3  gpu   ████      50 %      2    3.8 ms  warm      41.2  12/36 EUR

Ports 2
PORT      WHAT     KIND  LISTENS ON      LEADS TO        STATE  OPEN    LEFT  PROBLEM
web       exposed  http  10.77.0.1:80    127.0.0.1:3000  down      3  60 min  connection refused
db.attic  forward  tcp   127.0.0.1:5432  db.attic        up        0       -  -
"
    );
    assert_eq!(picture(&watcher.known, 100), expected);
}

#[test]
fn a_pane_that_the_daemon_knows_nothing_of_yet_is_empty() {
    let mut watcher = Watcher::new();
    watcher.hear(Answer::Services(Err("not yet".to_owned())));
    watcher.press("2");
    let seen = watcher.sees(100, 20);
    assert!(
        seen.contains("no member offers a service (not yet)"),
        "{seen}"
    );
    watcher.press("3");
    assert!(watcher.sees(100, 20).contains("no member offers a model\n"));
}

#[test]
fn a_daemon_that_is_away_is_missed_and_welcomed_back() {
    let mut watcher = Watcher::new();
    let silent = "the daemon does not answer, trying again";
    watcher.hear(Answer::Status(Err(silent.to_owned())));
    let seen = watcher.sees(100, 20);
    assert!(
        seen.contains(silent) && seen.contains("10.77.0.3"),
        "{seen}"
    );
    assert!(
        seen.contains("in           -"),
        "nothing is known to flow: {seen}"
    );
    // It is back, and counts from zero.
    watcher.status = status();
    watcher.passes();
    watcher.passes();
    let seen = watcher.sees(100, 20);
    assert!(
        !seen.contains(silent) && seen.contains("1.0 MB/s"),
        "{seen}"
    );
    // It says nothing at all.
    watcher.now += 7 * SECOND;
    let seen = watcher.sees(100, 20);
    assert!(seen.contains("no answer for 7 s"), "{seen}");
    assert!(watcher.sees(40, 8).contains("no answer for 7 s"));
}

#[test]
fn a_node_that_is_not_a_member_yet_says_so() {
    let mut watcher = Watcher::without_a_word();
    watcher.hear(Answer::Status(Err("joining, trying again".to_owned())));
    let seen = watcher.sees(60, 12);
    assert!(
        seen.starts_with("hivevpn\njoining, trying again\n"),
        "{seen}"
    );
}

#[test]
fn a_node_that_was_left_out_knows_what_to_do() {
    let mut watcher = Watcher::new();
    watcher.status.node.standing = "lapsed".to_owned();
    watcher.passes();
    let seen = watcher.sees(100, 20);
    assert!(
        seen.contains("  lapsed  ") && seen.contains("certificate has run out"),
        "{seen}"
    );
}

#[test]
fn what_is_dropped_lately_is_named() {
    let mut watcher = Watcher::new();
    watcher.status.drops = [("policy".to_owned(), 9), ("replayed".to_owned(), 70)].into();
    watcher.status.rejections = [("from-the-future".to_owned(), 1)].into();
    watcher.passes();
    let line = "in the last minute dropped: replayed +70, policy +4 (of 79); refused: from-the-future +1 (of 1)";
    let seen = watcher.sees(100, 20);
    assert!(seen.contains(line), "{seen}");
    for _ in 0..60 {
        watcher.passes();
    }
    let seen = watcher.sees(100, 20);
    assert!(
        seen.contains("nothing dropped or refused in the last minute"),
        "{seen}"
    );
}

#[test]
fn the_selection_stays_with_its_peer_wherever_that_goes() {
    let mut watcher = Watcher::new();
    watcher.press("↓");
    let selected = |watcher: &mut Watcher| {
        let cells = watcher.cells(100, 20, Palette::terminal(false));
        let is_reversed = |y: &u16| cells[(0, *y)].modifier.contains(Modifier::REVERSED);
        let rows = (6..19).filter(is_reversed);
        let symbols = rows.map(|y| cells[(0, y)].symbol().to_owned());
        symbols.collect::<Vec<_>>()
    };
    assert_eq!(selected(&mut watcher), ["日"]);
    // Another one comes online and is before it.
    watcher.status.peers[0].online = true;
    watcher.passes();
    assert_eq!(selected(&mut watcher), ["日"]);
    // It goes, and the one that takes its place is selected.
    watcher.status.peers.pop();
    watcher.passes();
    assert_eq!(selected(&mut watcher), ["g"]);
}

#[test]
fn rows_scroll_with_the_selection() {
    let mut watcher = Watcher::new();
    watcher.status.peers = (1..=100)
        .map(|number| peer(&format!("peer-{number:03}"), number, true))
        .collect();
    watcher.passes();
    watcher.press("G");
    let seen = watcher.sees(100, 20);
    assert!(
        seen.contains("peer-100") && seen.contains("peer-088"),
        "{seen}"
    );
    assert!(!seen.contains("peer-001"), "{seen}");
    watcher.press("g");
    assert!(watcher.sees(100, 20).contains("peer-001"));
}

/// The names in the first column, from above.
fn names(watcher: &mut Watcher) -> Vec<String> {
    let seen = watcher.sees(100, 20);
    let rows = seen.lines().skip(6).take_while(|line| !line.is_empty());
    rows.map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn rows_are_sorted_by_one_column_after_the_other() {
    let mut watcher = Watcher::new();
    watcher.status.peers[0].online = true;
    watcher.passes();
    assert_eq!(names(&mut watcher), ["attic", "gpu", "日本"]);
    watcher.press("ssss");
    assert!(watcher.sees(100, 20).contains("by RTT ↓"));
    assert_eq!(names(&mut watcher), ["日本", "gpu", "attic"]);
    watcher.press("r");
    assert!(watcher.sees(100, 20).contains("by RTT ↑"));
    assert_eq!(
        names(&mut watcher),
        ["gpu", "日本", "attic"],
        "nothing is last"
    );
    watcher.press("s");
    assert!(watcher.sees(100, 20).contains("by IN ↓"));
    watcher.press("sssss");
    assert!(
        !watcher.sees(100, 20).contains("by "),
        "the pane's own order again"
    );
}

#[test]
fn a_filter_leaves_what_contains_it_until_it_is_dropped() {
    let mut watcher = Watcher::new();
    assert_eq!(watcher.press("/gq"), Next::Go, "letters are letters there");
    assert!(watcher.sees(100, 20).contains("nothing here contains that"));
    watcher
        .view
        .press(KeyCode::Backspace.into(), &watcher.known);
    assert!(watcher.sees(100, 20).contains("/g▏"));
    assert_eq!(
        names(&mut watcher),
        ["gpu", "日本"],
        "its relay is called gate"
    );
    watcher.press("\n");
    assert!(watcher.sees(100, 20).contains("/g "));
    watcher.press("\u{1b}");
    assert_eq!(names(&mut watcher).len(), 3);
}

#[test]
fn details_of_a_peer_tell_every_way_to_it() {
    let mut watcher = Watcher::new();
    watcher.press("\n");
    let wanted = watcher.view.wanted().peer;
    assert_eq!(wanted.as_deref(), Some("12D3gpu"), "that is asked for");
    let seen = watcher.sees(100, 30);
    for part in ["peer id    12D3gpu", "ML-KEM-768", "asking for the ways"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    let candidate = Candidate {
        kind: "reflexive".to_owned(),
        address: "203.0.113.3:7777".to_owned(),
        rtt_ms: Some(3.75),
        state: "in use".to_owned(),
        reason: "it answers, and nothing that answers is better".to_owned(),
    };
    let why = Why {
        name: "gpu".to_owned(),
        path: "direct".to_owned(),
        endpoint: Some("203.0.113.3:7777".to_owned()),
        relay: None,
        since_s: Some(3725),
        candidates: vec![candidate],
    };
    let peer = "12D3gpu".to_owned();
    watcher.hear(Answer::Why { peer, why: Ok(why) });
    let expected = "\
direct 203.0.113.3:7777 for 1 h 2 min
  in use    reflexive 203.0.113.3:7777  3.8 ms
    it answers, and nothing that answers is better
";
    let seen = watcher.sees(100, 30);
    assert!(seen.contains(expected), "{seen}");
    // Where there is little room, it scrolls.
    watcher.view.press(KeyCode::End.into(), &watcher.known);
    watcher.view.press(KeyCode::Down.into(), &watcher.known);
    assert!(watcher.sees(60, 10).contains("it answers, and nothing"));
    watcher.press("q");
    assert_eq!(watcher.view.wanted().peer, None);
}

#[test]
fn what_others_write_cannot_command_the_terminal() {
    let mut watcher = Watcher::new();
    watcher.offers();
    watcher.press("2\n");
    let seen = watcher.sees(100, 30);
    assert!(seen.contains("for everybody[2J"), "{seen}");
    assert!(!seen.contains('\u{1b}'));
}

#[test]
fn there_are_colours_unless_nobody_wants_them() {
    let mut watcher = Watcher::new();
    watcher.offers();
    let mut colours = |palette| {
        let cells = watcher.cells(100, 20, palette);
        let coloured = cells
            .content
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        coloured.count()
    };
    assert!(colours(Palette::terminal(true)) > 0);
    assert_eq!(colours(Palette::terminal(false)), 0);
}

#[test]
fn keys_lead_everywhere_and_out() {
    let mut watcher = Watcher::new();
    let open = |watcher: &mut Watcher, keys: &str| {
        watcher.press(keys);
        watcher.view.pane
    };
    assert_eq!(open(&mut watcher, "3"), Pane::Models);
    assert_eq!(open(&mut watcher, "\t"), Pane::Ports);
    assert_eq!(open(&mut watcher, "\t"), Pane::Peers);
    assert_eq!(open(&mut watcher, "9"), Pane::Peers);
    watcher.view.press(KeyCode::BackTab.into(), &watcher.known);
    assert_eq!(watcher.view.pane, Pane::Ports);
    watcher.press("?");
    assert!(watcher.sees(100, 20).contains("Ctrl-C"));
    assert_eq!(watcher.press("q"), Next::Go, "it closes the help");
    assert_eq!(watcher.press("q"), Next::Quit);
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    watcher.press("/");
    assert_eq!(watcher.view.press(control('c'), &watcher.known), Next::Quit);
    assert_eq!(
        watcher.view.press(control('l'), &watcher.known),
        Next::Redraw
    );
}
