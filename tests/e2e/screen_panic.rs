//! Takes the terminal as `audit --watch` does. After one byte it panics, in `main` or in a `thread`: for
//! `watch_exits_test.py`.

use std::io::Read as _;

use keepalive_auditor::audit::watch::terminal::Screen;

fn main() {
    let mut screen = Screen::open(false).expect("a terminal");
    screen.draw(|frame| frame.render_widget("drawn", frame.area())).expect("it can be drawn on");
    std::io::stdin().read_exact(&mut [0]).expect("a byte");
    if std::env::args().nth(1).as_deref() == Some("thread") {
        std::thread::spawn(|| panic!("on purpose")).join().expect_err("it panics");
        // a thread that does not know of the panic draws on
        screen.draw(|frame| frame.render_widget("drawn again", frame.area())).expect("nothing fails");
        return;
    }
    panic!("on purpose");
}
