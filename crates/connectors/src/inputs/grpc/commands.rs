//! `ReceiveCommands`: what a host shall do, and what became of it.

use super::connection::Line;
use super::messages::{Answer, Broken, Messages, Next, WORDS_BYTES_MAX};
use super::status::{Code, Status};
use model::RejectReason;
use wire::MitigateResponse;

impl Line {
    /// Gives commands to the host of this connection, those first that were given before. It is open at once, and stays
    /// open as long as the connection: agents of the first generations ask for the next command without a pause when it
    /// ends. Who is revoked gets no more commands.
    pub(super) async fn receive_commands(&self, mut messages: Messages, mut answer: Answer) {
        let who = match self.who().await {
            Ok(who) => who,
            Err(status) => return answer.end(&status),
        };
        if answer.start().is_err() {
            return;
        }
        messages.bound(WORDS_BYTES_MAX);
        let hub = &self.hub;
        let mut commands = Some(hub.desk.commands(&who));
        let mut ticks = hub.ticks(hub.config.check_every);
        let mut stop = std::pin::pin!(hub.stop.requested());
        let mut is_listened_to = true;
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return answer.end(&Status::STOPPING),
                next = messages.next::<MitigateResponse>(), if is_listened_to => match next {
                    Ok(Next::Message(response)) => {
                        if hub.desk.check(&who).is_ok() {
                            hub.desk.answered(&who, response);
                        }
                    }
                    Ok(Next::Bad(error, sample)) => self.reject(RejectReason::Malformed, &error.to_string(), &sample),
                    // It will not say what becomes of them, and gets them all the same.
                    Ok(Next::End) => is_listened_to = false,
                    Err(Broken::Gone) => return,
                    Err(Broken::Wrong(status)) => return answer.end(&status),
                },
                command = next(&mut commands) => match command {
                    Some(_) if hub.desk.check(&who).is_err() => commands = None,
                    Some(command) => {
                        if answer.send(&command).await.is_err() {
                            return;
                        }
                    }
                    // Somebody newer gets them.
                    None => commands = None,
                },
                () = answer.gone() => return,
                _ = ticks.tick() => {
                    if messages.is_overdue() {
                        return answer.end(&Status::new(Code::DeadlineExceeded, "a message did not come to its end in time"));
                    }
                    if hub.desk.check(&who).is_err() {
                        commands = None;
                    }
                }
            }
        }
    }
}

/// The next command; waits for ever where none can come.
pub(super) async fn next<T>(commands: &mut Option<tokio::sync::mpsc::Receiver<T>>) -> Option<T> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}
