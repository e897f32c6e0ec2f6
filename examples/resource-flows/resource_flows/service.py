"""What happens when: events are handled by syncing the read model, matches are computed in a job behind it.

``resource_flow_created`` → write site and flow → enqueue ``compute_matches`` once per event. Each step may be
repeated (an event delivered twice, a worker killed in between) and leaves the same rows: writes are upserts, the job's
unique key is the event's id, and the job itself computes from what is stored.
"""

from __future__ import annotations

from fairway.concurrency import Context
from fairway.events import Event, EventHandlers
from fairway.jobs import JobContext, Queue, Tasks
from resource_flows.database import Database
from resource_flows.domain import ResourceFlow, Site, compute_matches

SITE_CREATED = "site_created"
FLOW_CREATED = "resource_flow_created"
FLOW_UPDATED = "resource_flow_updated"
TOPIC = "resource_flows"
QUEUE = "resource-flows"


def make_tasks(database: Database) -> Tasks:
    """Return the jobs of this app over a database."""
    tasks = Tasks()

    @tasks.task(queue=QUEUE, max_attempts=10, timeout_s=30.0)
    async def compute_flow_matches(ctx: JobContext, flow_id: str) -> int:
        """Compute and store the matches of one flow; return how many."""
        flow = await database.flow(flow_id)
        if flow is None:
            return 0
        matches = compute_matches(flow, await database.candidates(flow))
        await database.replace_matches(flow.id, matches)
        ctx.log.info("matches computed", flow=flow_id, matches=len(matches))
        return len(matches)

    return tasks


def make_handlers(database: Database, queue: Queue, tasks: Tasks) -> EventHandlers:
    """Return the event handlers of this app."""
    handlers = EventHandlers()
    compute = tasks.get("compute_flow_matches")

    @handlers.on(SITE_CREATED)
    async def site_created(ctx: Context, event: Event, site: Site) -> None:
        await database.sync_site(site)

    @handlers.on(FLOW_CREATED, FLOW_UPDATED)
    async def flow_changed(ctx: Context, event: Event, flow: ResourceFlow) -> None:
        await database.sync_flow(flow)
        await queue.enqueue(compute.using(unique_key=event.id, unique_for_s=86_400.0), flow.id)

    return handlers
