fn main() -> std::process::ExitCode {
    settled::commands::run_command_line()
}
