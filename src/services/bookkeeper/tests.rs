//! The books on a disk.

use tempfile::TempDir;

use super::*;
use crate::store::Store;

const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

struct Disk {
    store: Store,
    _directory: TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(directory.path()).unwrap(),
            _directory: directory,
        }
    }

    fn shelf(&self) -> Shelf {
        self.store.shelf("usage").unwrap()
    }

    fn open(&self) -> Arc<Bookkeeper> {
        Bookkeeper::open(self.shelf())
    }
}

fn row(requests: u64) -> String {
    format!(
        "{{\"member\":\"a\",\"since\":1,\"until\":2,\"requests\":{requests},\"errors\":0,\"prompt_tokens\":3,\
         \"completion_tokens\":4,\"estimated_tokens\":0,\"first_bytes\":[5]}}"
    )
}

fn use_it(books: &Bookkeeper, service: &str, requests: u64) {
    let key: Key = format!("{service} {PEER} tiny").parse().unwrap();
    let row = serde_json::from_str(&row(requests)).unwrap();
    books.ledger().restore(key.clone(), row).unwrap();
    books.ledger().keep_changes([key]);
}

#[tokio::test]
async fn usage_is_the_same_for_the_next_run() {
    let disk = Disk::new();
    let books = disk.open();
    use_it(&books, "llm", 7);
    assert!(disk.open().usage().is_empty(), "it was not saved yet");
    assert!(books.save().await);
    let next = disk.open();
    assert_eq!(next.usage(), books.usage());
    assert_eq!(next.usage()[0].requests, 7);
}

#[tokio::test]
async fn what_was_reset_does_not_come_back() {
    let disk = Disk::new();
    let books = disk.open();
    use_it(&books, "chat", 1);
    use_it(&books, "code", 2);
    assert!(books.save().await);
    let reset = books.reset(Some("chat")).await.unwrap();
    assert_eq!((reset.len(), reset[0].requests), (1, 1));
    let usage = disk.open().usage();
    assert_eq!((usage.len(), usage[0].service.as_str()), (1, "code"));

    let error = books.reset(Some("chat")).await.unwrap_err().to_string();
    assert!(
        error.contains("chat") && error.contains("of code"),
        "{error}"
    );
    assert_eq!(books.reset(None).await.unwrap().len(), 1);
    assert!(disk.open().usage().is_empty() && books.usage().is_empty());
    assert!(books.reset(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_harms_nothing_else() {
    let disk = Disk::new();
    let shelf = disk.shelf();
    let good = format!("llm {PEER} tiny");
    let other = format!("llm {PEER} other");
    let misnamed = row(1).replace("\"a\"", "\"No Name\"");
    for (name, value) in [
        (good.as_str(), row(3)),
        (&other, "{}".to_owned()),
        (&format!("llm {PEER} cut"), row(1)[..20].to_owned()),
        (&format!("llm {PEER} misnamed"), misnamed),
        ("llm - \u{1b}[31m", row(1)),
        ("of another time", "\u{0}".to_owned()),
    ] {
        shelf.put(name, value.as_bytes()).unwrap();
    }
    let books = disk.open();
    assert_eq!(books.usage().len(), 1);
    assert_eq!(books.usage()[0].requests, 3);
    use_it(&books, "llm", 4);
    assert!(books.save().await);
    assert_eq!(shelf.all().unwrap().len(), 6, "nothing is removed unasked");

    books.reset(None).await.unwrap();
    assert_eq!(shelf.all().unwrap(), []);
}
