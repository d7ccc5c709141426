//! The calls that answer with a URL: Exec, Attach and PortForward.

use api::cri::v1 as cri;
use tonic::{Response, Status};

use crate::sandbox::Pods;
use crate::stream::{Server, Wanted};

type Answer<T> = Result<Response<T>, Status>;

pub(super) fn exec(
    pods: &Pods,
    streams: &Server,
    request: cri::ExecRequest,
) -> Answer<cri::ExecResponse> {
    let cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
    let container = pods.container(&container_id)?;
    let wanted = Wanted { terminal: tty, stdin, stdout, stderr };
    let url = streams.exec(container, cmd, wanted)?;
    Ok(Response::new(cri::ExecResponse { url }))
}

pub(super) fn attach(
    pods: &Pods,
    streams: &Server,
    request: &cri::AttachRequest,
) -> Answer<cri::AttachResponse> {
    let container = pods.container(&request.container_id)?;
    let cri::AttachRequest { tty, stdin, stdout, stderr, .. } = *request;
    let url = streams.attach(container, Wanted { terminal: tty, stdin, stdout, stderr })?;
    Ok(Response::new(cri::AttachResponse { url }))
}

pub(super) fn port_forward(
    pods: &Pods,
    streams: &Server,
    request: &cri::PortForwardRequest,
) -> Answer<cri::PortForwardResponse> {
    let sandbox = pods.sandbox(&request.pod_sandbox_id)?;
    let url = streams.port_forward(sandbox, &request.port)?;
    Ok(Response::new(cri::PortForwardResponse { url }))
}
