fn main() -> std::process::ExitCode {
    settled::commands::main()
}
