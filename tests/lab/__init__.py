"""Several machines with a real SLURM, inside this one; for tests, and to try things by hand.

Each machine has a network card, address, hostname, processes, /tmp, /dev/shm and cgroups of its
own, and a slurmd; `control` has slurmctld. They share every other file: this tree, the virtual
environment, `lab.shared`, pytest's temporary folders. Needs root and, on Debian, what `.ci/slurm`
installs. A lab is up in half a second.

By hand:

    cd tests && python -m lab        a shell on `control`; `exit` ends the lab and all that is in it

In a test (mark it `slurm`; without root or SLURM it is skipped, with SHOAL_LAB=required it fails):

    def test_something(lab: Lab):    # three nodes n1, n2, n3 with 4 CPUs, 8 GB and 2 false GPUs
        job = lab.submit("--nodes=2", "--wrap=srun hostname")          # from lab.shared
        assert lab.wait_for_job(job)["JobState"] == "COMPLETED"
        lab.control.run(["squeue"], env={"A": "b"}, timeout_s=10)      # as by ssh
        n1, n2, n3 = lab.machines
        ray = n1.popen(["ray", "start", "--head", "--block"])
        n1.signal(ray, signal.SIGTERM)                                 # the command, not the way in
        n1.processes(), n1.shared_memory()                             # what is there
        n1.private, n1.path("/tmp/ray")                                # its own files, from here
        lab.cut(n2), lab.heal(n2)                                      # the network cable
        n3.power_off(), n3.start()                                     # the plug
        with RayCluster(lab, [n1, n2]) as cluster:                     # Ray without SLURM
            cluster.on(n1, ["ray", "status", f"--address={cluster.address}"])

After each test the lab is settled: jobs cancelled, commands killed, /dev/shm and `private` emptied,
machines on and idle. The partition `urgent` preempts `main`. False GPUs set CUDA_VISIBLE_DEVICES
and nothing else. slurmctld writes its state some seconds late: when it loses power just after a job
began, it may hold that job afterwards (launch_failed_requeued_held), as SLURM does anywhere.

How it is made: a keeper process holds a box of namespaces, and every machine is inside. The owner
(pytest) holds a pipe to the keeper; when it closes the kernel ends the box, so even an owner that
was killed leaves nothing. There is no name, port, bridge or mount outside the box, so labs side by
side do not meet.

`config` writes what machines read; `init` is a machine's first process, `keeper` the box's owner,
`machine`, `lab` and `ray_cluster` are what tests use.
"""
