//! Finds a process's container in `/proc/PID/cgroup`.

/// Returns the container's ID; `None` if there is no container, or its path does not contain the ID.
///
/// The last parts of these paths are (cgroup v1 and v2): `docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `libpod-ID.scope`, `kubepods/…/podUID/ID`, `ecs/TASK/ID`, and on Fargate `ecs/TASK/TASK-NUMBER`.
pub(super) fn container(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            let id = part.rsplit(['-', ':']).next().unwrap_or(part);
            if is_id(id, 64) {
                return Some(id);
            }
            let (task, number) = part.split_once('-')?;
            let fargate = is_id(task, 32) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            fargate.then_some(part)
        })
    })
}

fn is_id(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3b1d6f0c9a8e7d6c5b4a39281706f5e4d3c2b1a0998877665544332211ffeedd";

    #[test]
    fn a_container_is_found_in_the_paths_of_each_runtime() {
        for path in [
            "12:memory:/docker/{}",
            "0::/system.slice/docker-{}.scope",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f2e.slice/cri-containerd-{}.scope",
            "0::/../cri-containerd-{}.scope",
            "0::/kubepods.slice/kubepods-pod1f2e.slice/crio-{}.scope",
            "4:cpu:/kubepods/besteffort/pod0a1b2c3d-1111-2222-3333-444455556666/{}",
            "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:{}",
            "0::/machine.slice/libpod-{}.scope/container",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{}.scope",
            "9:pids:/ecs/0123456789abcdef0123456789abcdef/{}",
        ] {
            let cgroup = format!("13:misc:/\n{}\n", path.replace("{}", ID));
            assert_eq!(container(&cgroup), Some(ID), "{path}");
        }
        let fargate = "0123456789abcdef0123456789abcdef-1234567890";
        let cgroup = format!("1:pids:/ecs/0123456789abcdef0123456789abcdef/{fargate}\n");
        assert_eq!(container(&cgroup), Some(fargate));
    }

    #[test]
    fn a_process_outside_containers_has_no_container_id() {
        for cgroup in [
            "",
            "0::/",
            "0::/system.slice/nginx.service",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/init.scope\n",
            "nonsense",
            "1:pids:/ecs/0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(container(cgroup), None, "{cgroup}");
        }
    }
}
