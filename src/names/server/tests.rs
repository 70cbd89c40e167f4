use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::Query,
    rr::{Name, RecordType},
};

use super::*;
use crate::names::zone::tests::{snapshot, three};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

fn server(upstream: Option<Upstream>) -> Arc<Server> {
    let (_, snapshots) = watch::channel(snapshot(three(), Vec::new()));
    let (_, upstream) = watch::channel(upstream);
    Server::new(snapshots, upstream)
}

fn question(name: &str) -> Message {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    question
}

fn code(outcome: Outcome) -> Option<ResponseCode> {
    match outcome {
        Outcome::Reply(reply) => Some(reply.metadata.response_code),
        Outcome::Forward(_) | Outcome::Nothing => None,
    }
}

fn asked(server: &Server, question: &Message, from: IpAddr) -> Outcome {
    server.outcome(&question.to_vec().unwrap(), from)
}

#[tokio::test]
async fn this_machine_is_answered_and_nobody_else() {
    let server = server(None);
    let gpu = question("gpu.home.hive.internal.");
    let here = [HERE, Ipv6Addr::LOCALHOST.into(), "fd00::1".parse().unwrap()];
    for from in here {
        assert_eq!(
            code(asked(&server, &gpu, from)),
            Some(ResponseCode::NoError)
        );
    }
    for from in [
        PEER,
        "fd00::2".parse().unwrap(),
        "192.0.2.1".parse().unwrap(),
    ] {
        let Outcome::Reply(reply) = asked(&server, &gpu, from) else {
            panic!("it is told so")
        };
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        assert!(reply.answers.is_empty() && reply.authorities.is_empty());
    }
}

#[tokio::test]
async fn what_is_private_is_never_asked_elsewhere() {
    let upstream = Upstream::new([SocketAddr::from(([192, 0, 2, 53], 53))]);
    let alone = server(None);
    let in_front = server(Some(upstream));
    let is_forwarded =
        |server: &Server, name| matches!(asked(server, &question(name), HERE), Outcome::Forward(_));
    assert!(is_forwarded(&in_front, "example.org."));
    assert!(!is_forwarded(&alone, "example.org."));
    for private in [
        "gpu.home.hive.internal.",
        "nobody.home.hive.internal.",
        "gpu.work.hive.internal.",
        "hive.internal.",
        "9.9.77.10.in-addr.arpa.",
    ] {
        assert!(!is_forwarded(&in_front, private), "{private}");
    }
    let other = asked(&in_front, &question("gpu.work.hive.internal."), HERE);
    assert_eq!(
        code(other),
        Some(ResponseCode::NXDomain),
        "who is refused asks the next server"
    );
    assert!(!matches!(
        asked(&in_front, &question("example.org."), PEER),
        Outcome::Forward(_)
    ));
}

#[tokio::test]
async fn what_is_no_question_is_not_answered_as_one() {
    let server = server(None);
    let mut response = question("gpu.home.hive.internal.");
    response.metadata.message_type = MessageType::Response;
    assert!(matches!(asked(&server, &response, HERE), Outcome::Nothing));
    assert!(matches!(server.outcome(b"short", HERE), Outcome::Nothing));
    let mut cut = question("gpu.home.hive.internal.").to_vec().unwrap();
    cut.truncate(20);
    assert_eq!(
        code(server.outcome(&cut, HERE)),
        Some(ResponseCode::FormErr)
    );
    let mut update = question("gpu.home.hive.internal.");
    update.metadata.op_code = OpCode::Update;
    assert_eq!(
        code(asked(&server, &update, HERE)),
        Some(ResponseCode::NotImp)
    );
    let mut two = question("gpu.home.hive.internal.");
    two.add_query(two.queries[0].clone());
    assert_eq!(
        code(asked(&server, &two, HERE)),
        Some(ResponseCode::FormErr)
    );
    let mut future = question("gpu.home.hive.internal.");
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    assert_eq!(
        code(asked(&server, &future, HERE)),
        Some(ResponseCode::BADVERS)
    );
    let mut chaos = question("version.bind.");
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(
        code(asked(&server, &chaos, HERE)),
        Some(ResponseCode::Refused)
    );
}

#[tokio::test]
async fn an_answer_that_does_not_fit_says_so() {
    let server = server(None);
    let Outcome::Reply(mut reply) = asked(&server, &question("gpu.home.hive.internal."), HERE)
    else {
        panic!("it is answered")
    };
    assert!(reply.metadata.authoritative && !reply.metadata.recursion_available);
    let record = reply.answers[0].clone();
    reply.additionals = vec![record.clone(); 100];
    let whole = Message::from_vec(&fitting(reply.clone()).unwrap()).unwrap();
    assert!(
        !whole.metadata.truncation,
        "what is only of use later may be missing"
    );
    assert_eq!(whole.answers.len(), 1);
    reply.answers = vec![record; 100];
    let cut = fitting(reply.clone()).unwrap();
    assert!(cut.len() <= usize::from(MIN_PAYLOAD));
    assert!(Message::from_vec(&cut).unwrap().metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_PAYLOAD);
    reply.answers.truncate(20);
    reply.edns = Some(edns);
    let long = fitting(reply).unwrap();
    assert_eq!(Message::from_vec(&long).unwrap().answers.len(), 20);
}

#[tokio::test]
async fn questions_follow_each_other_on_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(server(None).serve_tcp(listener));
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        let question = question("gpu.home.hive.internal.").to_vec().unwrap();
        client.write_u16(question.len() as u16).await.unwrap();
        client.write_all(&question).await.unwrap();
        let mut answer = vec![0; client.read_u16().await.unwrap().into()];
        client.read_exact(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "10.77.0.2");
    }
    serving.abort();
}
