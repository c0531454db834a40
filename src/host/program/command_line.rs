//! What an interpreter runs, by its command line: the script, the module, the jar or the class.
//!
//! Only this name is kept: arguments may contain passwords.

use crate::owner::{is_interpreter, without_version};

/// The flags of an interpreter that matter.
struct Flags {
    /// The next argument is the name.
    name: &'static [&'static str],
    /// The next argument is code, so there is no name.
    code: &'static [&'static str],
    /// The next argument belongs to the flag.
    value: &'static [&'static str],
}

const NONE: Flags = Flags { name: &[], code: &["-e", "-c"], value: &[] };

fn flags(interpreter: &str) -> Flags {
    match interpreter {
        "python" | "pypy" => Flags { name: &["-m"], code: &["-c"], value: &["-W", "-X", "--check-hash-based-pycs"] },
        "node" | "nodejs" => Flags {
            name: &[],
            code: &["-e", "-p", "-pe", "--eval", "--print"],
            value: &["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions"],
        },
        "ruby" => Flags { name: &[], code: &["-e"], value: &["-I", "-r", "-C"] },
        "perl" => Flags { name: &[], code: &["-e", "-E"], value: &["-I"] },
        "php" => Flags { name: &["-f"], code: &["-r", "-S"], value: &["-d", "-c", "-z"] },
        "java" => Flags {
            name: &["-jar", "-m", "--module"],
            code: &[],
            value: &[
                "-cp",
                "-classpath",
                "--class-path",
                "-p",
                "--module-path",
                "--upgrade-module-path",
                "--add-modules",
                "--limit-modules",
                "--add-opens",
                "--add-exports",
                "--add-reads",
                "--source",
            ],
        },
        "beam.smp" => Flags { name: &["-s"], code: &["-eval"], value: &[] },
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" => {
            Flags { name: &[], code: &["-c"], value: &["-o", "-O", "+o", "+O", "--rcfile", "--init-file"] }
        }
        "qemu" => Flags { name: &[], code: &[], value: &["-L", "-cpu", "-E", "-U", "-0", "-s", "-g", "-d", "-D"] },
        _ if interpreter.starts_with("ld-") => Flags {
            name: &[],
            code: &[],
            value: &["--library-path", "--preload", "--audit", "--argv0", "--glibc-hwcaps-mask"],
        },
        _ => NONE,
    }
}

/// The name of what the interpreter `exe` runs, from the arguments of its process; empty if there is none.
pub(super) fn script<'a>(exe: &str, arguments: &[&'a str]) -> &'a str {
    let Some((&called, arguments)) = arguments.split_first() else { return "" };
    let called = file_name(called);
    if is_multi_call(exe) {
        return match arguments.split_first() {
            // `busybox nc`, and `busybox sh script`
            Some((&applet, _)) if is_multi_call(called) => {
                let inner = if is_interpreter(applet) { script(applet, arguments) } else { "" };
                if inner.is_empty() { file_name(applet) } else { inner }
            }
            // `sh`, a link to busybox
            _ if is_interpreter(called) => by_flags(called, arguments),
            _ => "",
        };
    }
    if is_interpreter(exe) { by_flags(exe, arguments) } else { "" }
}

fn is_multi_call(exe: &str) -> bool {
    matches!(exe, "busybox" | "toybox" | "coreutils")
}

fn by_flags<'a>(exe: &str, arguments: &[&'a str]) -> &'a str {
    let interpreter = without_version(exe);
    let Flags { name, code, value } = flags(if exe.starts_with("ld-") { exe } else { interpreter });
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        if name.contains(&argument) {
            return arguments.next().map_or("", |found| named(interpreter, found));
        } else if code.contains(&argument) {
            return "";
        } else if value.contains(&argument) {
            arguments.next();
        } else if interpreter == "beam.smp" || is_word_before_script(interpreter, argument) {
            // the arguments of the virtual machine are no scripts
        } else if !argument.starts_with(['-', '+', '@']) {
            return named(interpreter, argument);
        }
    }
    ""
}

/// `dotnet exec app.dll`, `deno run app.ts`.
fn is_word_before_script(interpreter: &str, argument: &str) -> bool {
    matches!((interpreter, argument), ("dotnet", "exec") | ("deno" | "bun", "run"))
}

/// `Kafka` of `kafka.Kafka`, `app.py` of `/srv/app.py`. The working directory (`node .`) is no name.
fn named<'a>(interpreter: &str, found: &'a str) -> &'a str {
    let file = file_name(found);
    if matches!(file, "." | "..") {
        return "";
    }
    let (_, extension) = file.rsplit_once('.').unwrap_or_default();
    // a Java class; files of source code and archives have names like all others
    let is_class = interpreter == "java" && !matches!(extension, "" | "jar" | "war" | "java");
    if is_class { extension } else { file }
}

fn file_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_command_lines() {
        for (line, expected) in [
            ("python3.11 app.py --port 80", "app.py"),
            ("python3 -u -W ignore /srv/app.py", "app.py"),
            ("python3 /usr/local/bin/gunicorn app:app", "gunicorn"),
            ("python3 -m uvicorn app:app", "uvicorn"),
            ("python3 -c import_this", ""),
            ("python3", ""),
            ("node --max-old-space-size=512 -r dotenv/config dist/server.js", "server.js"),
            ("node -e 1", ""),
            ("node .", ""),
            ("python3 ./", ""),
            ("ruby3.1 /usr/bin/puma -C config/puma.rb", "puma"),
            ("perl -w -I lib daemon.pl", "daemon.pl"),
            ("php8.2 -d memory_limit=1G artisan queue:work", "artisan"),
            ("java -Xmx1g -Dpassword=secret -jar /app/cart.jar --port 80", "cart.jar"),
            ("java -cp /libs/a.jar:/libs/b.jar kafka.Kafka config.properties", "Kafka"),
            ("java --add-opens java.base/java.net=ALL-UNNAMED -m shop/com.example.Main", "Main"),
            ("java Keepalive.java", "Keepalive.java"),
            ("java Main", "Main"),
            ("dotnet exec /app/shop.dll", "shop.dll"),
            ("beam.smp -W w -- -root /usr/lib/erlang -progname erl -- -home /var -- -s rabbit boot", "rabbit"),
            ("bash -eu -o pipefail ./run.sh", "run.sh"),
            ("bash -c sleep", ""),
            ("busybox nc 10.0.0.1 80", "nc"),
            ("busybox sh /entrypoint.sh", "entrypoint.sh"),
            ("ld-linux-x86-64.so.2 --library-path /lib /srv/server -v", "server"),
            ("qemu-x86_64-static -L /sysroot /srv/server", "server"),
            ("nginx -c nginx.conf", ""),
        ] {
            let arguments: Vec<_> = line.split(' ').collect();
            assert_eq!(script(arguments[0], &arguments), expected, "{line}");
        }
    }

    #[test]
    fn a_link_to_busybox_runs_what_its_name_says() {
        assert_eq!(script("busybox", &["/bin/sh", "/entrypoint.sh"]), "entrypoint.sh");
        assert_eq!(script("busybox", &["nc", "10.0.0.1", "80"]), "");
        assert_eq!(script("busybox", &[]), "");
    }
}
