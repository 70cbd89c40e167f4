//! What the core logs as an error: in a simulation nothing should be.
//!
//! With `SIM_TRACE=1` everything down to DEBUG is printed as well.

use std::{
    cell::RefCell,
    fmt::{self, Write},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::DefaultGuard,
};

/// Collects the errors logged on this thread for as long as it lives.
pub struct Complaints {
    heard: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
    // A guard belongs to its thread.
    _thread: std::marker::PhantomData<Rc<RefCell<()>>>,
}

impl Default for Complaints {
    fn default() -> Self {
        let heard = Arc::default();
        let listener = Listener {
            heard: Arc::clone(&heard),
            prints: std::env::var_os("SIM_TRACE").is_some(),
        };
        Self {
            heard,
            _guard: tracing::subscriber::set_default(listener),
            _thread: std::marker::PhantomData,
        }
    }
}

impl Complaints {
    /// Those since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    prints: bool,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = if self.prints {
            Level::DEBUG
        } else {
            Level::ERROR
        };
        *metadata.level() <= wanted
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.prints {
            LevelFilter::DEBUG
        } else {
            LevelFilter::ERROR
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let level = event.metadata().level();
        if self.prints {
            println!("             {level} {}", line.0);
        }
        // Only our own: boringtun calls much an error that is a matter of course on the open internet.
        if *level == Level::ERROR && event.metadata().target().starts_with("hivevpn") {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(line.0);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string cannot fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
